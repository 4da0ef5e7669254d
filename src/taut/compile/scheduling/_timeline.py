"""When the steps of a program run, and how long its stages take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from taut.compile._block import CopyStep, KernelStep
from taut.compile._parallel import schedulable
from taut.compile._program import Lowered
from taut.compile.scheduling._plan import Candidate
from taut.compile.scheduling._report import TimelineSpan
from taut.runtime import Span

_CALLS, _SECONDS = 300, 0.3
"""Of the calls that are profiled, at most; on a busy host a worker is often late."""


def spans_of(candidate: Candidate, inputs: Sequence[Any]) -> tuple[TimelineSpan, ...]:
    """The timeline of the quickest of several calls, from the start of its first step."""
    quickest = min(_calls(candidate, inputs), key=lambda spans: max((span.end for span in spans), default=0))
    start = min((span.begin for span in quickest), default=0)
    labels, kinds = _names(candidate.lowered)
    return tuple(
        TimelineSpan(
            span.worker,
            (span.begin - start) * 1e-9,
            (span.end - start) * 1e-9,
            labels.get((span.function, span.instruction), ""),
            kinds.get((span.function, span.instruction), ""),
        )
        for span in quickest
    )


def stage_seconds(candidate: Candidate, inputs: Sequence[Any], counts: Sequence[int]) -> list[float]:
    """Seconds of each stage of a program, from the end of the one before: the least of several calls.

    Args:
        candidate: a program of stages.
        inputs: of a call.
        counts: how many steps, or parts of steps, each stage has.
    """
    block = candidate.lowered.blocks[0]
    instructions = candidate.lowered.instructions[0]
    stage_of = {}
    placed = iter(schedulable(block))
    for stage, count in enumerate(counts):
        for _ in range(count):
            stage_of[instructions[next(placed)]] = stage
    best = [float("inf")] * len(counts)
    for spans in _calls(candidate, inputs):
        for stage, seconds in enumerate(_lengths(spans, stage_of, len(counts))):
            best[stage] = min(best[stage], seconds)
    return best


def _calls(candidate: Candidate, inputs: Sequence[Any]) -> Iterator[list[Span]]:
    began = time.perf_counter()
    for _ in range(_CALLS):
        yield candidate.session.timeline(*inputs)
        if time.perf_counter() - began > _SECONDS:
            return


def _lengths(spans: Sequence[Span], stage_of: dict[int, int], count: int) -> list[float]:
    begins, ends = [float("inf")] * count, [0.0] * count
    others = []
    for span in spans:
        stage = stage_of.get(span.instruction) if span.function == 0 else None
        if stage is None:
            others.append(span.end)
            continue
        begins[stage], ends[stage] = min(begins[stage], span.begin), max(ends[stage], span.end)
    lengths = []
    for stage in range(count):
        if ends[stage] == 0.0:
            lengths.append(0.0)
            continue
        # What lies between stages, e.g. an operator on ATen, is part of neither.
        before = max([end for end in (*others, *ends[:stage]) if end <= begins[stage]], default=begins[stage])
        lengths.append(max(0.0, ends[stage] - before) * 1e-9)
    return lengths


def _names(lowered: Lowered) -> tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]]:
    """Module and kind of each instruction that computes."""
    labels, kinds = {}, {}
    for function, (block, instructions) in enumerate(zip(lowered.blocks, lowered.instructions, strict=True)):
        for step, instruction in zip(block.steps, instructions, strict=True):
            labels[function, instruction] = step.label
            kind = "aten"
            if isinstance(step, CopyStep):
                kind = "copy"
            elif isinstance(step, KernelStep):
                kind = step.kernel if isinstance(step.kernel, str) else step.kernel.template
            kinds[function, instruction] = kind
    return labels, kinds
