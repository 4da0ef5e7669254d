"""The fastest of a few schedules, by measurement."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from taut.codegen import Recipe, build
from taut.compile._block import Block, KernelStep
from taut.compile._dims import product
from taut.compile._measured_schedule import session_of, step_seconds
from taut.compile._parallel import Schedule, Split, apply_schedule, list_schedule, lockstep, schedulable, threads_of
from taut.compile._program import Lowered
from taut.compile._split import can_split
from taut.compile._undisturbed import TimedSession, time_sessions
from taut.errors import MeasurementError
from taut.runtime import Session
from taut.stats import Interval, quantile_interval

_HAND_OFF = 2e-7
"""Seconds from the end of a step on one worker to the start of another's."""
_TRANSFER = 1 / 1e10
"""Seconds to read a byte from the cache of another core."""
_WORTH_SPLITTING = 4e-6
"""Seconds of a step below which its parts would not gain what handing over their inputs costs."""
_SAMPLES = 40
_CONFIDENCE = 0.99


@dataclasses.dataclass(frozen=True)
class Measured:
    """A schedule with what it takes.

    Attributes:
        name: of the fastest.
        schedule: the fastest; None for the sequential program.
        lowered: its program.
        session: runs it.
        seconds: of a call, the median, by the name of the schedule.
        intervals: around these; none for a schedule whose calls were disturbed too often.
    """

    name: str
    schedule: Schedule | None
    lowered: Lowered
    session: Session
    seconds: Mapping[str, float]
    intervals: Mapping[str, Interval]


def fastest_schedule(
    lowered: Lowered, inputs: Sequence[Any], workers: int = 2, *, budget: float = 6.0, exact: bool = False
) -> Measured:
    """Measure schedules beside the sequential program; another is taken only if it is surely faster.

    "intra" runs each step on all workers; "list" runs whole steps and "split" parts of steps by the longest path to the
    end. They take turns in short blocks, and only those blocks count in which all threads had a core, so that a busy
    host costs time rather than a wrong choice. The sequential program gives way to "intra", and the better of these to
    another, where the intervals of their medians lie apart.

    Args:
        lowered: a sequential program.
        inputs: of a call.
        workers: threads.
        budget: wall seconds of measuring.
        exact: whether only schedules count whose results are those of the sequential program bit for bit; otherwise
            images may be split by rows, which changes results by rounding.
    """
    block = lowered.blocks[0]
    sequential = session_of(lowered, build(list(lowered.recipes().values())))
    durations = step_seconds(lowered, sequential, inputs)
    schedules = candidates(block, durations, workers, exact=exact)
    programs = {name: apply_schedule(lowered, schedule) for name, schedule in schedules.items()}
    recipes = lowered.recipes()
    for program in programs.values():
        recipes |= program.recipes()
    built = build(list(recipes.values()))
    usable = {name: made for name, made in programs.items() if not built.failed.keys() & made.recipes().keys()}
    found = {"sequential": lowered} | usable
    sessions = {name: session_of(made, built) for name, made in found.items()}
    threads = {"sequential": 1} | {name: threads_of(schedule) for name, schedule in schedules.items()}
    timed = {name: TimedSession(session, inputs, threads[name]) for name, session in sessions.items()}
    time_sessions(timed, _SAMPLES, budget)
    seconds = {name: statistics.median(own.times()) for name, own in timed.items()}
    intervals = {name: interval for name, own in timed.items() if (interval := _interval(own.undisturbed)) is not None}
    name = _surely_fastest(seconds, intervals)
    return Measured(name, schedules.get(name), found[name], sessions[name], seconds, intervals)


def _surely_fastest(seconds: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    """The first of "sequential", "intra" and the others that nothing after it surely beats."""
    others = sorted(seconds.keys() - {"sequential", "intra"}, key=lambda name: seconds[name])
    best = "sequential"
    for name in ("intra", *others):
        if name in intervals and best in intervals and intervals[name].high < intervals[best].low:
            best = name
    return best


def _interval(times: Sequence[float]) -> Interval | None:
    try:
        return quantile_interval(times, 0.5, _CONFIDENCE)
    except MeasurementError:
        return None


def candidates(block: Block, durations: Sequence[float], workers: int, *, exact: bool = False) -> dict[str, Schedule]:
    """The schedules that `fastest_schedule` measures, by name.

    Args:
        block: the code.
        durations: seconds of each step.
        workers: threads.
        exact: whether results must stay the same bit for bit.
    """
    parts: dict[int, Split] = {}
    for step in schedulable(block):
        split = None if exact else _by_rows(block, step, workers)
        if split is None and durations[step] >= _WORTH_SPLITTING and can_split(block.steps[step], workers):
            split = Split(workers)
        if split is not None:
            parts[step] = split
    listed = functools.partial(list_schedule, block, durations, workers, hand_off=_HAND_OFF, transfer=_TRANSFER)
    return {
        "list": listed(),
        "split": listed(parts=parts),
        "intra": lockstep(block, durations, workers, parts),
    }


def _by_rows(block: Block, number: int, workers: int) -> Split | None:
    """Rows for each worker, unless each would then read more weights than there are inputs to share."""
    step = block.steps[number]
    if not isinstance(step, KernelStep) or not isinstance(step.kernel, Recipe):
        return None
    weights = inputs = 0
    for view in step.inputs:
        size = product(view.sizes)
        if not isinstance(size, int):
            return None
        if view.buffer.kind == "constant":
            weights += size
        else:
            inputs += size
    return Split(workers, rows=True) if weights <= inputs and can_split(step, workers, rows=True) else None
