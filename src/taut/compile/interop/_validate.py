"""Whether a schedule is one of its graph."""

from __future__ import annotations

from taut.compile.interop._graph import OperatorGraph
from taut.compile.interop._types import STRATEGIES, Schedule, Stage
from taut.errors import ScheduleError


def validate(graph: OperatorGraph, schedule: Schedule, r: int | None = None, s: int | None = None) -> None:
    """Checks that every operator runs once, after its predecessors, in groups that one head leads.

    Args:
        graph: the operators.
        schedule: the stages to check.
        r: most operators of a group, None for any number.
        s: most groups of a stage, None for any number.

    Raises:
        ScheduleError: the message names the stage and the operators at fault.
    """
    place: dict[int, tuple[int, int, int]] = {}  # stage, group, position
    for i, stage in enumerate(schedule.stages):
        _check_form(graph, stage, i, r, s)
        for j, group in enumerate(stage.groups):
            for k, number in enumerate(group):
                if number in place:
                    raise ScheduleError(
                        f"stage {i}: {_named(graph, number)} also runs in stage {place[number][0]}",
                        expected="each operator once",
                    )
                place[number] = i, j, k
    missing = [number for number in range(len(graph)) if number not in place]
    if missing:
        raise ScheduleError(f"{_named(graph, *missing)} in no stage", expected="each operator once")
    for producer, consumer in graph.edges:
        before, after = place[producer], place[consumer]
        if before[0] > after[0] or (before[0] == after[0] and (before[1] != after[1] or before[2] > after[2])):
            raise ScheduleError(
                f"stage {after[0]}: {_named(graph, consumer)} needs the result of {_named(graph, producer)}, "
                f"which is in {'another group' if before[0] == after[0] else f'stage {before[0]}'}"
                if before[:2] != after[:2]
                else f"stage {after[0]}: {_named(graph, consumer)} runs before {_named(graph, producer)}",
                expected="predecessors in an earlier stage, or earlier in the same group",
            )
    for i, stage in enumerate(schedule.stages):
        for group in stage.groups:
            astray = [number for number in group if not graph.reachable[group[0]] >> number & 1]
            if astray:
                raise ScheduleError(
                    f"stage {i}: {_named(graph, *astray)} cannot be reached from {_named(graph, group[0])}, "
                    "the head of the group",
                    expected="a group of one operator and its successors",
                )


def _check_form(graph: OperatorGraph, stage: Stage, i: int, r: int | None, s: int | None) -> None:
    if stage.strategy not in STRATEGIES:
        raise ScheduleError(f"stage {i}: strategy {stage.strategy!r}", expected=f"one of {', '.join(STRATEGIES)}")
    if not stage.groups or not all(stage.groups):
        raise ScheduleError(f"stage {i}: an empty stage or group", expected="at least one operator in each")
    wrong = [number for number in stage.operators if not 0 <= number < len(graph)]
    if wrong:
        raise ScheduleError(f"stage {i}: operator {wrong[0]}", expected=f"operators 0 to {len(graph) - 1}")
    if r is not None and max(map(len, stage.groups)) > r:
        raise ScheduleError(f"stage {i}: a group of {max(map(len, stage.groups))}", expected=f"at most {r} operators")
    if s is not None and len(stage.groups) > s:
        raise ScheduleError(f"stage {i}: {len(stage.groups)} groups", expected=f"at most {s}")
    if stage.strategy == "intra" and len(stage.groups) > 1:
        raise ScheduleError(
            f"stage {i}: {len(stage.groups)} groups share all workers", expected="one group for the strategy intra"
        )
    if stage.strategy == "merge":
        classes = graph.merge_classes()
        found = {classes[number] for number in stage.operators}
        if len(stage.operators) > 1 and (
            len(found) > 1 or -1 in found or any(len(group) > 1 for group in stage.groups)
        ):
            raise ScheduleError(
                f"stage {i}: {_named(graph, *stage.operators)} cannot be merged",
                expected="convolutions of one input with equal output size, stride, activation and centre, groups = 1",
            )


def _named(graph: OperatorGraph, *numbers: int) -> str:
    names = ", ".join(graph.operators[number].name for number in numbers[:10])
    more = ", ..." if len(numbers) > 10 else ""
    return f"operator{'s' * (len(numbers) > 1)} {names}{more}"
