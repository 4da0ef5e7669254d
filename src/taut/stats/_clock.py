"""What a measurement reads the time from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from taut.errors import ArgumentError


@dataclass(frozen=True)
class Clock:
    """A clock to measure with.

    Args:
        name: how results call it.
        read: seconds that the measured work has taken so far, monotonic.
        wall: seconds that have passed for the user, monotonic; budgets are spent on this one.
    """

    name: str
    read: Callable[[], float]
    wall: Callable[[], float] = time.perf_counter


_CLOCKS = {
    "wall": Clock("wall", time.perf_counter),
    "process_cpu": Clock("process_cpu", time.process_time),
    "thread_cpu": Clock("thread_cpu", time.thread_time),
}


def resolve_clock(clock: str | Clock) -> Clock:
    """The clock of a given name; a `Clock` is returned as it is.

    Raises:
        ArgumentError: if no clock has this name.
    """
    if isinstance(clock, Clock):
        return clock
    if clock not in _CLOCKS:
        raise ArgumentError("clock", clock, expected=f"one of {', '.join(_CLOCKS)}, or a Clock")
    return _CLOCKS[clock]
