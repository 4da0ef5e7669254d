"""What makes a schedule invalid, each named by its error."""

from __future__ import annotations

import pytest
from interop_graphs import SQUEEZENET

from taut.compile.interop import Convolution, Operator, OperatorGraph, Schedule, Stage, validate
from taut.errors import ScheduleError

VALID = Schedule((Stage(((0, 1),)), Stage(((2, 3), (4,))), Stage(((5,),), "intra")))


def test_a_valid_schedule() -> None:
    validate(SQUEEZENET, VALID)
    validate(SQUEEZENET, VALID, r=2, s=2)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Stage(((0, 1),)), Stage(((2, 3), (4,)))], "operator 5 in no stage"),
        ([Stage(((0,),)), *VALID.stages], "stage 1: operator 0 also runs in stage 0"),
        ([*VALID.stages, Stage(((6,),))], "stage 3: operator 6"),
        ([*VALID.stages, Stage(())], "stage 3: an empty stage or group"),
        ([*VALID.stages, Stage(((),))], "stage 3: an empty stage or group"),
        ([VALID.stages[1], VALID.stages[0], VALID.stages[2]], "stage 0: operator 2 needs .* operator 0, .* in stage 1"),
        (
            [Stage(((0,), (1,))), Stage(((2, 3), (4,))), Stage(((5,),))],
            "stage 0: operator 1 needs .* operator 0, .* in another group",
        ),
        ([Stage(((1, 0),)), *VALID.stages[1:]], "stage 0: operator 1 runs before operator 0"),
        (
            [Stage(((0,),)), Stage(((1, 2, 3),)), Stage(((4, 5),))],
            "stage 1: operator 2 cannot be reached from operator 1",
        ),
        ([*VALID.stages[:2], Stage(((5,),), "magic")], "stage 2: strategy 'magic'"),  # pyright: ignore[reportArgumentType]
        ([Stage(((0, 1),)), Stage(((2, 3), (4,)), "intra"), Stage(((5,),))], "stage 1: 2 groups share all workers"),
        ([Stage(((0, 1),)), Stage(((2, 3), (4,)), "merge"), Stage(((5,),))], "stage 1: .* cannot be merged"),
    ],
)
def test_what_is_wrong(stages: list[Stage], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        validate(SQUEEZENET, Schedule(tuple(stages)))


def test_pruning() -> None:
    with pytest.raises(ScheduleError, match="stage 0: a group of 2"):
        validate(SQUEEZENET, VALID, r=1)
    with pytest.raises(ScheduleError, match="stage 1: 2 groups"):
        validate(SQUEEZENET, VALID, s=1)


def test_a_head_reaches_its_group_through_the_stage() -> None:
    # 2 needs both 0 and 1; with 1 done before, 0 leads it.
    graph = OperatorGraph.from_edges(3, [(0, 2), (1, 2)])
    validate(graph, Schedule((Stage(((1,),)), Stage(((0, 2),)))))
    with pytest.raises(ScheduleError, match="operator 1 cannot be reached from operator 0"):
        validate(graph, Schedule((Stage(((0, 1, 2),)),)))


def test_merging() -> None:
    first, second = (Convolution(name, (8, 4, 4), (4, 4), (1, 1)) for name in "xy")
    operators = [Operator("a", "conv", first), Operator("b", "conv", first), Operator("c", "conv", second)]
    graph = OperatorGraph.from_edges(3, [], operators)
    validate(graph, Schedule((Stage(((0,), (1,)), "merge"), Stage(((2,),), "merge"))))
    with pytest.raises(ScheduleError, match="operators a, c cannot be merged"):
        validate(graph, Schedule((Stage(((0,), (2,)), "merge"), Stage(((1,),)))))
