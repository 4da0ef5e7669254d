"""Whether a program of streams waits for everything that it has to wait for."""

from __future__ import annotations

from taut.compile.interop import OperatorGraph
from taut.compile.scheduling.streams._program import PROLOGUE, Record, Release, Run, StreamProgram, Wait
from taut.errors import ScheduleError


def verify_program(graph: OperatorGraph, program: StreamProgram, returned: frozenset[int] = frozenset()) -> None:
    """Check by vector clocks that every result is complete before it is used, and unused before it is released.

    Two things that streams do are in order only if they are on one stream, or if an event leads from one to the other.
    Each operator has to be behind its predecessors and the prologue, what follows a release behind all that used what
    was released, whatever stream it is on, and the end of stream 0 behind everything.

    Args:
        graph: the operators.
        program: what is issued.
        returned: operators whose results a call returns.

    Raises:
        ScheduleError: naming the operators that nothing puts in order.

    Source: Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System" (CACM 1978); Fidge, "Timestamps
    in Message-Passing Systems That Preserve the Partial Ordering" (1988).
    """
    _Verifier(graph, program.streams, returned).check(program)


class _Verifier:
    def __init__(self, graph: OperatorGraph, streams: int, returned: frozenset[int]) -> None:
        self._graph = graph
        self._returned = returned
        # For each stream, how many operators of each stream are known to be done before what it does next.
        self._clocks = [[0] * streams for _ in range(streams)]
        self._events: dict[int, list[int]] = {}
        self._done: dict[int, tuple[int, int]] = {}
        self._released: set[int] = set()
        self._unused = [0] * streams  # what has to be done before memory that was released is used again
        self._culprit = [PROLOGUE] * streams  # by stream the operator that `_unused` comes from

    def check(self, program: StreamProgram) -> None:
        streams = len(self._clocks)
        for instruction in program.instructions:
            if not isinstance(instruction, Release) and not 0 <= instruction.stream < streams:
                raise ScheduleError(f"{instruction}: no such stream", expected=f"streams 0 to {streams - 1}")
            match instruction:
                case Run(stream, operator):
                    self._run(stream, operator)
                case Record(stream, event):
                    if event in self._events:
                        raise ScheduleError(f"event {event} is recorded twice", expected="each event once")
                    self._events[event] = list(self._clocks[stream])
                case Wait(stream, event):
                    if event not in self._events:
                        raise ScheduleError(
                            f"stream {stream} waits for event {event}, which was not recorded yet",
                            expected="events that are recorded before they are waited for",
                        )
                    own = self._clocks[stream]
                    self._clocks[stream] = [max(a, b) for a, b in zip(own, self._events[event], strict=True)]
                case Release(operator):
                    self._release(operator)
        missing = [number for number in range(len(self._graph)) if number not in self._done]
        if missing:
            raise ScheduleError(f"{self._named(missing[0])} never runs", expected="each operator once")
        for operator, (stream, tick) in self._done.items():
            if self._clocks[0][stream] < tick:
                raise ScheduleError(
                    f"a call ends before {self._named(operator)} on stream {stream} is done",
                    expected="stream 0 waits for all others in the end",
                )

    def _run(self, stream: int, operator: int) -> None:
        if operator in self._done:
            raise ScheduleError(f"{self._named(operator)} runs twice", expected="each operator once")
        if operator != PROLOGUE:
            if not 0 <= operator < len(self._graph):
                raise ScheduleError(f"operator {operator}", expected=f"operators 0 to {len(self._graph) - 1}")
            for before in (PROLOGUE, *self._graph.predecessors[operator]):
                self._check_order(stream, operator, before)
        clock = self._clocks[stream]
        for other, tick in enumerate(self._unused):
            if clock[other] < tick:
                raise ScheduleError(
                    f"{self._named(operator)} on stream {stream} may take memory that "
                    f"{self._named(self._culprit[other])} on stream {other} still uses",
                    expected="a barrier between a release and what runs next",
                )
        clock[stream] += 1
        self._done[operator] = stream, clock[stream]

    def _check_order(self, stream: int, operator: int, before: int) -> None:
        names = f"{self._named(operator)} on stream {stream}", self._named(before)
        if before not in self._done:
            raise ScheduleError(f"{names[0]} is issued before {names[1]}", expected="operators after those they need")
        if before in self._released:
            raise ScheduleError(
                f"{names[0]} needs {names[1]}, which was released", expected="results until their last use"
            )
        other, tick = self._done[before]
        if self._clocks[stream][other] < tick:
            raise ScheduleError(
                f"{names[0]} does not wait for {names[1]} on stream {other}",
                expected="an event that leads from one to the other",
            )

    def _release(self, operator: int) -> None:
        users = [operator, *self._graph.successors[operator]] if 0 <= operator < len(self._graph) else [operator]
        late = [user for user in users if user not in self._done]
        if late or operator in self._returned or operator in self._released:
            raise ScheduleError(
                f"{self._named(operator)} is released too early or twice", expected="results until their last use"
            )
        self._released.add(operator)
        for user in users:
            stream, tick = self._done[user]
            if self._unused[stream] < tick:
                self._unused[stream], self._culprit[stream] = tick, user

    def _named(self, operator: int) -> str:
        if not 0 <= operator < len(self._graph):
            return "the prologue" if operator == PROLOGUE else f"operator {operator}"
        return f"operator {operator} ({self._graph.operators[operator].name})"
