"""When the operators of a call run on their streams, and how long its stages take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taut.compile.scheduling._report import TimelineSpan
from taut.compile.scheduling.streams._execute import Executor, Stamps
from taut.compile.scheduling.streams._program import StreamProgram

_REPLAYS = 20


def profile(
    executor: Executor, program: StreamProgram, buffers: Sequence[Any]
) -> tuple[tuple[TimelineSpan, ...], list[float]]:
    """The timeline of the quickest of some replays, and seconds of each stage, the least of all.

    The program is captured again with stamps around each operator, which make it a little slower.

    Args:
        executor: of the operators.
        program: to run.
        buffers: inputs on the device.
    """
    streams = executor.streams

    def issue() -> Stamps:
        stamps = Stamps()
        executor.issue(program, executor.values(buffers), stamps)
        return stamps

    replay = streams.capture(issue)
    quickest: list[TimelineSpan] = []
    stages = [float("inf")] * len(program.ends)
    operators = executor.operators.graph.operators
    for _ in range(_REPLAYS):
        stamps = replay()
        streams.synchronize()
        spans = [
            TimelineSpan(
                stream,
                streams.seconds(stamps.start, begin),
                streams.seconds(stamps.start, end),
                operators[number].name,
                operators[number].kind,
            )
            for number, (stream, begin, end) in stamps.operators.items()
        ]
        if not quickest or _last(spans) < _last(quickest):
            quickest = spans
        ends = [0.0, *(streams.seconds(stamps.start, end) for end in stamps.ends)]
        stages = [min(best, after - before) for best, before, after in zip(stages, ends, ends[1:], strict=False)]
    return tuple(sorted(quickest, key=lambda span: span.begin)), stages


def _last(spans: Sequence[TimelineSpan]) -> float:
    return max((span.end for span in spans), default=0.0)
