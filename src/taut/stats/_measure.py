"""Timing one callable by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from taut.errors import ArgumentError, MeasurementError
from taut.stats._arms import Runnable, TimedArm, as_arm
from taut.stats._clock import Clock, resolve_clock
from taut.stats._quantile import Interval, quantile_interval


@dataclass(frozen=True)
class Sample:
    """Times of one callable.

    Attributes:
        seconds: of one call, each averaged over a block of `calls_per_value` calls, in the order of measuring.
        calls_per_value: how many calls each value is the mean of.
        clock: what the times were read from.
    """

    seconds: tuple[float, ...]
    calls_per_value: int
    clock: str

    @property
    def median(self) -> float:
        """Median of the values, in seconds."""
        return float(np.median(self.seconds))

    def quantile(self, q: float, confidence: float = 0.95) -> Interval:
        """Quantile of the time of one call, with the interval that the sample can carry.

        Raises:
            MeasurementError: if the values are means of several calls, whose spread says nothing on single calls, or
                if there are too few of them.
        """
        if self.calls_per_value > 1:
            raise MeasurementError(
                f"quantile {q:g}: each value is the mean of {self.calls_per_value} calls, "
                "which hides how much single calls differ",
                fix="measure with min_time=0 and as many repeats as the quantile needs",
            )
        return quantile_interval(self.seconds, q, confidence)


def measure(
    run: TimedArm | Runnable,
    *,
    clock: Literal["wall", "process_cpu", "thread_cpu"] | Clock = "wall",
    warmup: int = 2,
    min_time: float = 0.05,
    repeats: int = 9,
) -> Sample:
    """Time a callable on its own; to decide between two of them use `compare`.

    Args:
        run: called without arguments, or an arm.
        clock: what the calls are timed with.
        warmup: untimed calls before the first value.
        min_time: wall seconds that all timed calls last together, at least; 0 times each call by itself.
        repeats: number of values.

    Returns:
        A sample of `repeats` values.

    Raises:
        ArgumentError: if an argument is out of range.
        MeasurementError: if the callable raises or the clock does not advance.
    """
    for name, value, least in (("warmup", warmup, 0), ("min_time", min_time, 0), ("repeats", repeats, 1)):
        if not least <= value < math.inf:
            raise ArgumentError(name, value, expected=f"{least} or more")
    source = resolve_clock(clock)
    arm = as_arm(run, "run")
    if warmup:
        arm.time_block(warmup, source)
    calls, wanted = 1, min_time / repeats
    while wanted > 0:
        start = source.wall()
        arm.time_block(calls, source)
        spent = source.wall() - start
        if spent >= wanted or calls >= 1 << 40:
            break
        calls = min(100 * calls, max(calls + 1, math.ceil(1.1 * calls * wanted / max(spent, 1e-9))))
    warm_up = int(calls > 1 or arm.needs_warm_up)
    totals = [arm.time_block(calls, source, warm_up=warm_up) for _ in range(repeats)]
    if min(totals) <= 0:
        raise MeasurementError(
            f"{arm.name}: the clock {source.name} did not advance during {calls} calls",
            fix='use clock="wall", or a longer min_time',
        )
    return Sample(tuple(total / calls for total in totals), calls, source.name)
