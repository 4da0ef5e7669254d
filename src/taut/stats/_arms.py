"""The two sides of a comparison."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

from taut.errors import ArgumentError, MeasurementError, TautError
from taut.stats._clock import Clock

Runnable = Callable[[], object]


class TimedArm(Protocol):
    """Something whose calls can be timed: an `Arm` here, an `IsolatedArm` in another process."""

    @property
    def name(self) -> str:
        """How messages call this arm."""
        ...

    @property
    def needs_warm_up(self) -> bool:
        """Whether each block must open with an untimed call because its set-up disturbs the first one."""
        ...

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        """Seconds that `repeats` calls take together, after `warm_up` untimed ones."""
        ...


@dataclass(frozen=True)
class Arm:
    """A callable to be timed in this process.

    Args:
        run: called without arguments; what it returns is dropped.
        name: how messages call it.
        prepare: untimed, called before each timed block, e.g. to set the thread count. The block then opens with one
            untimed call of `run`, because the first call after such a change pays for it.
    """

    run: Runnable
    name: str = ""
    prepare: Callable[[], None] | None = None

    @property
    def needs_warm_up(self) -> bool:
        """Whether each block must open with an untimed call."""
        return self.prepare is not None

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        """Seconds that `repeats` calls take together, after `warm_up` untimed ones, with the cyclic collector off.

        Raises:
            MeasurementError: if the callable raises; the original exception is its cause.
        """
        try:
            if self.prepare is not None:
                self.prepare()
            for _ in repeat(None, warm_up):
                self.run()
            return time_calls(self.run, repeats, clock)
        except TautError:
            raise
        except Exception as error:
            raise MeasurementError(
                f"{self.name or 'the measured callable'} raised {type(error).__name__}: {error}",
                fix="call it once by itself and mend it; only work that succeeds can be timed",
            ) from error


def time_calls(run: Runnable, repeats: int, clock: Clock) -> float:
    """Seconds that `repeats` calls of `run` take together, with the cyclic garbage collector off."""
    read = clock.read
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = read()
        for _ in repeat(None, repeats):
            run()
        return read() - start
    finally:
        if collecting:
            gc.enable()


def as_arm(value: TimedArm | Runnable, default_name: str) -> TimedArm:
    """The arm that `value` is, or an `Arm` around a plain callable.

    Raises:
        ArgumentError: if it is neither.
    """
    if isinstance(value, Arm):
        return value if value.name else Arm(value.run, default_name, value.prepare)
    if hasattr(value, "time_block"):
        return value  # pyright: ignore[reportReturnType]
    if callable(value):
        return Arm(value, default_name)
    raise ArgumentError(default_name, value, expected="a callable without arguments, an Arm or an IsolatedArm")
