"""Programs for streams: in order where they have to be, whatever the schedule, and found out where they are not."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from branching import Branches, Fire, LastBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_trace import WatchedStreams
from torch import Tensor, nn

from taut.compile.interop import Schedule, Stage, count, greedy, list_schedule, sequential, validate
from taut.compile.scheduling import (
    StreamedModel,
    StreamProgram,
    merge_convolutions,
    mergeable,
    staged_program,
    stream_operators,
    unstaged_program,
    verify_program,
)
from taut.compile.scheduling.streams._program import Record, Release, Run, Wait
from taut.errors import ArgumentError, GraphError, ScheduleError
from taut.graph import Graph, Interpreter, capture

CHANNELS = 4
GRAPHS = 4


pytestmark = pytest.mark.usefixtures("one_thread")


class RandomNetwork(nn.Module):
    """Convolutions, sums, views and joins in a random graph."""

    def __init__(self, seed: int, size: int = 14) -> None:
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.inputs = [tuple(draw.randrange(node + 1) for _ in range(2)) for node in range(size)]
        self.kinds = [draw.choice(("convolution", "sum", "halves", "relu")) for _ in range(size)]
        self.layers = nn.ModuleList(
            nn.Conv2d(CHANNELS, CHANNELS, *draw.choice([(1, 1, 0), (3, 1, 1)])) for _ in range(size)
        )

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (a, b), kind, layer in zip(self.inputs, self.kinds, self.layers, strict=True):
            if kind == "convolution":
                values.append(layer(values[a]))
            elif kind == "sum":
                values.append(values[a] + values[b])
            elif kind == "halves":
                first, second = values[a].chunk(2, 1)
                values.append(torch.cat([second, values[b][:, : CHANNELS // 2] - first], 1))
            else:
                values.append(torch.relu(values[a]))
        return torch.cat(values[-3:], 1)


@functools.cache
def random_graph(seed: int) -> Graph:
    return capture(RandomNetwork(seed).eval(), (torch.randn(1, CHANNELS, 4, 4),))


def random_stages(graph: Any, draw: st.DrawFn) -> Schedule:
    """Stages whose groups are a head and some that need nothing but the group and earlier stages."""
    left, stages = set(range(len(graph))), []
    while left:
        ready = [number for number in sorted(left) if left.isdisjoint(graph.predecessors[number])]
        heads = draw(st.lists(st.sampled_from(ready), min_size=1, unique=True))
        groups = [[head] for head in heads]
        left -= set(heads)
        for group in groups:
            while draw(st.booleans()):
                following = [
                    number
                    for number in sorted(left)
                    if left.isdisjoint(graph.predecessors[number])
                    and not set(graph.predecessors[number]).isdisjoint(group)
                    and not any(set(graph.predecessors[number]) & set(other) for other in groups if other is not group)
                ]
                if not following:
                    break
                group.append(following[0])
                left.remove(following[0])
        stages.append(Stage(tuple(map(tuple, groups))))
    return Schedule(tuple(stages))


@st.composite
def programs(draw: st.DrawFn) -> tuple[Graph, StreamProgram]:
    """A random graph and the program of a random schedule, with barriers or without."""
    graph = random_graph(draw(st.integers(0, GRAPHS - 1)))
    operators = stream_operators(graph)
    streams = draw(st.integers(1, 4))
    if draw(st.booleans()):
        stages = random_stages(operators.graph, draw)
        validate(operators.graph, stages)
        return graph, staged_program(operators.graph, stages, operators.returned, streams)
    seconds = [[draw(st.floats(0, 1)), *[float("inf")] * (streams - 1)] for _ in range(len(operators.graph))]
    return graph, unstaged_program(operators.graph, list_schedule(operators.graph, seconds))


@given(programs())
@settings(max_examples=30)
def test_every_schedule_gives_the_bits_of_the_sequential_run_without_a_race(drawn: tuple[Graph, StreamProgram]) -> None:
    graph, program = drawn
    watched = WatchedStreams()
    model = StreamedModel(graph, program, device=watched)
    x = torch.randn(1, CHANNELS, 4, 4)
    assert torch.equal(model(x), Interpreter(graph)(x))
    watched.end()
    assert watched.operators >= len(model.operators.graph)
    assert watched.races == []


def without(program: StreamProgram, position: int) -> StreamProgram:
    left = (*program.instructions[:position], *program.instructions[position + 1 :])
    return dataclasses.replace(program, instructions=left, ends=())


def races(graph: Graph, program: StreamProgram) -> list[str]:
    """What is seen to go wrong when a program runs, whatever the verifier thinks of it."""
    watched = WatchedStreams()
    model = StreamedModel(graph, device=watched)
    inputs = [torch.randn(1, CHANNELS, 4, 4)]
    watched.capture(lambda: model.executor.results(model.executor.issue(program, model.executor.values(inputs))))
    watched.end()
    return watched.races


@pytest.mark.parametrize("kind", ["greedy", "list"])
def test_whatever_missing_wait_lets_a_race_happen_is_found_before(kind: str) -> None:
    seen = 0
    for seed in range(GRAPHS):
        graph = random_graph(seed)
        operators = stream_operators(graph)
        stages = greedy(operators.graph, lambda stages: [1.0] * len(stages))
        seconds = [[1.0, *[float("inf")] * 2]] * len(operators.graph)
        program = (
            staged_program(operators.graph, stages, operators.returned)
            if kind == "greedy"
            else unstaged_program(operators.graph, list_schedule(operators.graph, seconds))
        )
        assert races(graph, program) == []
        for position, instruction in enumerate(program.instructions):
            sabotaged = without(program, position)
            if isinstance(instruction, Wait) and races(graph, sabotaged):
                seen += 1
                with pytest.raises(ScheduleError):
                    StreamedModel(graph, sabotaged)
    assert seen > GRAPHS


def two_branches() -> tuple[Graph, StreamProgram]:
    """Two branches of two operators and their sum, in two stages; on two streams."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            a, b, c, d = self.layers
            return torch.cat([b(a(x)), d(c(torch.relu(x)))], 1)

    torch.manual_seed(0)
    graph = capture(Branches().eval(), (torch.randn(1, CHANNELS, 4, 4),))
    operators = stream_operators(graph)
    stages = Schedule((Stage(((0, 1), (2, 3))), Stage(((4,),))))
    validate(operators.graph, stages)
    return graph, staged_program(operators.graph, stages, operators.returned)


def test_a_stage_forks_and_joins_and_releases_behind_its_barrier() -> None:
    _, program = two_branches()
    assert program == StreamProgram(
        2,
        (
            Run(0, -1),
            Record(0, 0),
            Wait(1, 0),
            Run(0, 0),
            Run(0, 1),
            Run(1, 2),
            Run(1, 3),
            Record(1, 1),
            Wait(0, 1),
            Release(0),
            Release(2),
            Run(0, 4),
            Release(1),
            Release(3),
        ),
        (9, 12),
    )


@pytest.mark.parametrize(
    ("position", "word"),
    [(2, "does not wait for the prologue"), (8, "does not wait for operator 3"), (5, r"issued before operator 2")],
)
def test_an_instruction_that_is_missing_is_named(position: int, word: str) -> None:
    graph, program = two_branches()
    sabotaged = without(program, position)
    with pytest.raises(ScheduleError, match=word):
        verify_program(stream_operators(graph).graph, sabotaged)
    if isinstance(program.instructions[position], Wait):
        assert races(graph, sabotaged) or position == 2  # the prologue of this graph does nothing


def test_a_call_that_ends_too_early_is_found() -> None:
    graph, program = two_branches()
    kept = [instruction for instruction in program.instructions if not isinstance(instruction, Release)]
    last = [Record(0, 2), Wait(1, 2), Run(1, 4)]  # nobody waits for stream 1 any more
    with pytest.raises(ScheduleError, match="a call ends before operator 4"):
        verify_program(stream_operators(graph).graph, StreamProgram(2, (*kept[:-1], *last)))


def test_memory_released_without_a_barrier_is_found_and_seen_to_be_taken() -> None:
    class Fork(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a = torch.softmax(x, 0)
            return torch.cat([torch.cumsum(a, 0), torch.sort(torch.cumprod(a, 0)).values])

    graph = capture(Fork(), (torch.randn(1, CHANNELS, 4, 4),))
    operators = stream_operators(graph)
    kinds = [operator.kind for operator in operators.graph.operators]
    assert kinds == ["softmax", "cumsum", "cumprod", "sort", "cat"]
    fork = [Run(0, -1), Run(0, 0), Record(0, 0), Wait(1, 0), Run(1, 1), Run(0, 2)]
    join = [Record(1, 1), Wait(0, 1)]
    early = StreamProgram(2, (*fork, Release(0), Run(0, 3), *join, Run(0, 4)))  # stream 1 may still read operator 0
    late = StreamProgram(2, (*fork, *join, Release(0), Run(0, 3), Run(0, 4)))
    with pytest.raises(ScheduleError, match=r"operator 3 .* may take memory that operator 1"):
        verify_program(operators.graph, early)
    assert any("takes memory" in race for race in races(graph, early))
    verify_program(operators.graph, late)
    assert races(graph, late) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda i: [*i, Run(0, 4)], "runs twice"),
        (lambda i: [*i, Run(0, 9)], "operators 0 to 4"),
        (lambda i: [*i, Run(5, 4)], "no such stream"),
        (lambda i: [Wait(0, 7), *i], "not recorded yet"),
        (lambda i: [*i, Record(0, 0)], "recorded twice"),
        (lambda i: [*i, Release(1)], "too early or twice"),
        (lambda i: [*i, Release(4)], "too early or twice"),
        (lambda i: [*i[:4], Release(0), *i[4:]], "too early or twice"),
    ],
)
def test_what_makes_no_sense_is_refused(change: Callable[[list[Any]], list[Any]], word: str) -> None:
    graph, program = two_branches()
    changed = StreamProgram(program.streams, tuple(change(list(program.instructions))))
    with pytest.raises(ScheduleError, match=word):
        verify_program(stream_operators(graph).graph, changed, frozenset({4}))


def test_the_last_block_of_inception_has_the_published_counts() -> None:
    operators = stream_operators(capture(LastBlock().eval(), (torch.randn(1, 8, 4, 4),)))
    found = count(operators.graph)
    assert (len(operators.graph), found.states, found.transitions, found.schedules) == (11, 180, 4_871, 3_757_392)


def test_a_fire_module_is_four_operators_two_of_which_can_be_merged() -> None:
    module = nn.Sequential(Fire(), Fire()).eval()
    operators = stream_operators(capture(module, (torch.randn(1, 16, 4, 4),))).graph
    assert [operator.kind for operator in operators.operators] == 2 * ["conv2d", "conv2d", "conv2d", "cat"]
    assert operators.merge_classes() == [-1, 0, 0, -1, -1, 1, 1, -1]


def test_stages_that_do_not_fit_are_refused() -> None:
    graph, _ = two_branches()
    with pytest.raises(ScheduleError, match="no stage"):
        StreamedModel(graph, Schedule((Stage(((0,),)),)))
    with pytest.raises(ScheduleError, match="needs the result"):
        StreamedModel(graph, Schedule((Stage(((4,),)), Stage(((0, 1), (2, 3))))))
    with pytest.raises(ArgumentError, match="streams"):
        StreamedModel(graph, streams=33)


def test_convolutions_to_merge_are_merged_in_the_graph_before() -> None:
    module, x = Branches().eval(), torch.randn(1, 16, 6, 6)
    graph = capture(module, (x,))
    operators = stream_operators(graph).graph
    merged = [number for number, operator in enumerate(operators.operators) if operator.convolution is not None]
    order = sequential(operators, lambda stages: [1.0] * len(stages), ("concurrent",)).stages
    stages = [Stage(tuple((number,) for number in merged), "merge")]
    stages += [stage for stage in order if stage.operators[0] not in merged]
    with pytest.raises(ScheduleError, match="run as one"):
        StreamedModel(graph, Schedule(tuple(stages)))
    nodes = [one.node for one in mergeable(graph) if one.convolution.source == mergeable(graph)[0].convolution.source]
    assert len(nodes) == len(merged) == 3
    wide = merge_convolutions(graph, [nodes])
    assert len(stream_operators(wide).graph) == len(operators) - 2
    torch.testing.assert_close(StreamedModel(wide)(x), module(x).detach(), rtol=1e-4, atol=1e-4)


def test_groups_beyond_the_streams_queue() -> None:
    graph, _ = two_branches()
    operators = stream_operators(graph)
    stages = Schedule((Stage(((0, 1), (2, 3))), Stage(((4,),))))
    program = staged_program(operators.graph, stages, operators.returned, 1)
    assert program.streams == 1
    assert not any(isinstance(instruction, (Record, Wait)) for instruction in program.instructions)
    verify_program(operators.graph, program, operators.returned)


def test_an_operator_that_fails_is_named() -> None:
    graph, _ = two_branches()
    model = StreamedModel(graph)
    model.executor._steps[2][0] = model.executor._steps[2][0]._replace(get=lambda values: (values[0],))
    with pytest.raises(GraphError, match="failed"):
        model(torch.randn(1, CHANNELS, 4, 4))
