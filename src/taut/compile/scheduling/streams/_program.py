"""What is issued to streams, in which order: the program of a schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from taut.compile.interop import OperatorGraph, Schedule, Stage, Timeline
from taut.errors import ArgumentError

MOST_STREAMS = 32
"""Streams that torch has of one priority; a further one would be one of these again."""
PROLOGUE = -1
"""Stands for an operator in `Run`: views of inputs and constants."""


class Run(NamedTuple):
    """Issue an operator to a stream."""

    stream: int
    operator: int


class Record(NamedTuple):
    """Record an event on a stream: it happens when all that was issued to the stream before is done."""

    stream: int
    event: int


class Wait(NamedTuple):
    """Let what is issued to a stream from here on wait for an event."""

    stream: int
    event: int


class Release(NamedTuple):
    """Let the memory of an operator's results be used again."""

    operator: int


Instruction = Run | Record | Wait | Release


@dataclasses.dataclass(frozen=True)
class StreamProgram:
    """What the host issues; stream 0 is the one that a call starts and ends on.

    Attributes:
        streams: how many.
        instructions: in the order in which they are issued.
        ends: for each stage the number of instructions up to its barrier; empty without stages.
    """

    streams: int
    instructions: tuple[Instruction, ...]
    ends: tuple[int, ...] = ()


class _Emitter:
    """Gathers instructions; events are numbered as they are recorded."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self._events = 0

    def record(self, stream: int) -> int:
        self.instructions.append(Record(stream, self._events))
        self._events += 1
        return self._events - 1

    def barrier(self, first: int, others: Sequence[int]) -> None:
        """Let `first` wait for all the others."""
        for stream in others:
            self.instructions.append(Wait(first, self.record(stream)))

    def stage(self, groups: Sequence[Sequence[int]], streams: int) -> None:
        """Fork, run each group on a stream, and join."""
        used = min(streams, len(groups))
        if used > 1:
            forked = self.record(0)
            self.instructions += [Wait(stream, forked) for stream in range(1, used)]
        for number, group in enumerate(groups):
            self.instructions += [Run(number % used, operator) for operator in group]
        self.barrier(0, range(1, used))


def sequential_stages(graph: OperatorGraph) -> Schedule:
    """One operator after the other, each a stage."""
    return Schedule(tuple(Stage(((operator,),)) for operator in graph.order))


def staged_program(
    graph: OperatorGraph, schedule: Schedule, returned: frozenset[int] = frozenset(), streams: int = MOST_STREAMS
) -> StreamProgram:
    """Stages one after the other: their groups on a stream each, with a barrier after each stage.

    The first group of a stage stays on stream 0. Results are released after the stage that is the last to need them,
    when every stream has arrived at its barrier: memory that a stream takes then is in nobody's use any more, though
    the allocator of torch knows only the order of the stream on which it was taken.

    Args:
        graph: the operators.
        schedule: stages of them, valid as `interop.validate` checks it.
        returned: operators whose results are never released.
        streams: at most; groups of a stage beyond them queue.
    """
    emitter = _Emitter()
    emitter.instructions.append(Run(0, PROLOGUE))
    stage_of = {operator: number for number, stage in enumerate(schedule.stages) for operator in stage.operators}
    last: dict[int, list[int]] = {}
    for operator, stage in stage_of.items():
        if operator not in returned:
            needed = max((stage_of[consumer] for consumer in graph.successors[operator]), default=stage)
            last.setdefault(needed, []).append(operator)
    ends = []
    for number, stage in enumerate(schedule.stages):
        emitter.stage(stage.groups, streams)
        ends.append(len(emitter.instructions))
        emitter.instructions += [Release(operator) for operator in sorted(last.get(number, ()))]
    used = max((min(streams, len(stage.groups)) for stage in schedule.stages), default=1)
    return StreamProgram(used, tuple(emitter.instructions), tuple(ends))


def repeated_stage(stage: Stage, count: int, streams: int = MOST_STREAMS) -> StreamProgram:
    """One stage again and again, to time it: its operators find their inputs where a call of all has left them."""
    emitter = _Emitter()
    for _ in range(count):
        emitter.stage(stage.groups, streams)
    return StreamProgram(min(streams, len(stage.groups)), tuple(emitter.instructions))


def unstaged_program(graph: OperatorGraph, timeline: Timeline) -> StreamProgram:
    """No barriers: each operator waits for those whose results it needs, and for what its own stream has to do.

    All results live to the end of the call.

    Args:
        graph: the operators.
        timeline: places each operator on one worker, which becomes a stream.
    """
    rank = {operator: position for position, operator in enumerate(graph.order)}
    slots = sorted(timeline.slots, key=lambda slot: (slot.start, rank[slot.operator]))
    numbers: dict[int, int] = {}  # streams by the workers of the list schedule, which may leave some out
    emitter = _Emitter()
    emitter.instructions.append(Run(0, PROLOGUE))
    begun = emitter.record(0)
    reached: list[dict[int, int]] = []  # for each stream and each other how many of its operators it is behind
    done: dict[int, tuple[int, int, int, dict[int, int]]] = {}  # stream, position there, event, what it is behind
    for slot in slots:
        stream = numbers.setdefault(slot.workers[0], len(numbers))
        if stream == len(reached):
            reached.append({})
            if stream > 0:
                emitter.instructions.append(Wait(stream, begun))
        behind = reached[stream]
        for operator in graph.predecessors[slot.operator]:
            other, position, event, known = done[operator]
            if behind.get(other, 0) < position:
                emitter.instructions.append(Wait(stream, event))
                for each, count in known.items():
                    behind[each] = max(behind.get(each, 0), count)
        position = behind[stream] = behind.get(stream, 0) + 1
        emitter.instructions.append(Run(stream, slot.operator))
        event = -1
        if graph.successors[slot.operator]:
            event = emitter.record(stream)
        done[slot.operator] = stream, position, event, dict(behind)
    emitter.barrier(0, range(1, len(reached)))
    return StreamProgram(max(len(reached), 1), tuple(emitter.instructions))


def check_streams(streams: int) -> None:
    """Raise ArgumentError unless there can be so many streams."""
    if not 1 <= streams <= MOST_STREAMS:
        raise ArgumentError("streams", streams, expected=f"1 to {MOST_STREAMS}")
