"""Counters in memory that processes share: one of them writes, the others wait, asleep in the kernel of the system."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from taut.kernels._load import _native

SIGNAL_BYTES: int = _native.signal_bytes
"""Of shared memory that a signal takes, all zeros at first."""


def raise_signal(signal: Tensor, number: int) -> None:
    """Set a counter, after all that this process has written before, and wake the processes that wait for it.

    Args:
        signal: `(2,)` int32 in memory that the processes share: the counter, and how many sleep for it.
        number: modulo 2^32.

    Raises:
        KernelError: `signal` is not as above.
    """
    _native.raise_signal(signal, number % 2**32)


def wait_for_signal(signals: Sequence[Tensor], number: int, seconds: float, *, spin_seconds: float = 0.0) -> int | None:
    """Wait until one of some counters has reached a number.

    Args:
        signals: as in `raise_signal`, one or more.
        number: modulo 2^32; a counter has reached it if it is less than 2^31 ahead.
        seconds: to wait, at most 60.
        spin_seconds: to look again and again before sleeping, where a core is free for it.

    Returns:
        The place of the first that has, or None after `seconds`. While it sleeps, only the first of them wakes it.

    Raises:
        KernelError: an argument is not as above.
    """
    found = _native.wait_for_signal(list(signals), number % 2**32, seconds, spin_seconds)
    return None if found < 0 else found
