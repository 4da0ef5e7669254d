"""Whether the host is quiet enough for a measurement to be short."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taut.errors import ArgumentError
from taut.stats._fingerprint import available_cores, load_average

_LOAD_PER_CORE = 0.7
_JITTER = 0.05
_OTHERS = 0.1
_STEAL = 0.01


@dataclass(frozen=True)
class Quietness:
    """How undisturbed the host is.

    A host that is not quiet makes measurements longer, not wrong: `compare` keeps its error rate on it.

    Attributes:
        quiet: whether there is no reason for doubt.
        load_per_core: load average over one minute by the number of cores; None if unknown.
        jitter: how much longer than the median one in ten units of fixed work takes, as a share.
        others: share of the host's cores that other processes used meanwhile; None if unknown.
        steal: share of the time that the hypervisor gave to other guests; None if unknown.
        reasons: one sentence for each doubt.
    """

    quiet: bool
    load_per_core: float | None
    jitter: float
    others: float | None
    steal: float | None
    reasons: tuple[str, ...]


def quietness(duration: float = 0.2) -> Quietness:
    """Spin on one core for `duration` seconds and judge how even the progress was.

    Raises:
        ArgumentError: if `duration` is not above 0.
    """
    if not 0 < duration < 60:
        raise ArgumentError("duration", duration, expected="seconds above 0 and below 60")
    cores = available_cores()
    before, own = _host_times(), time.process_time()
    units: list[float] = []
    start = now = time.perf_counter()
    while now - start < duration or len(units) < 10:
        _work()
        last, now = now, time.perf_counter()
        units.append(now - last)
    median, slow = np.quantile(units, (0.5, 0.9))
    jitter = float(slow / median - 1)
    own, after = time.process_time() - own, _host_times()

    load = load_average()
    load_per_core = None if load is None else load / cores
    others = steal = None
    if before is not None and after is not None and after[0] > before[0]:
        total, busy, stolen = (new - old for new, old in zip(after, before, strict=True))
        others = max(0.0, (busy - own) / total)
        steal = stolen / total
    checks = (
        # The load average also remembers this process, so it counts only where nothing better is known.
        (load_per_core if others is None else None, _LOAD_PER_CORE, "the load average is {:.2f} per core"),
        (jitter, _JITTER, "one in ten units of equal work took {:.1%} longer than the median"),
        (others, _OTHERS, "other processes used {:.0%} of the cores"),
        (steal, _STEAL, "the hypervisor took {:.1%} of the time for other guests"),
    )
    reasons = tuple(text.format(value) for value, limit, text in checks if value is not None and value > limit)
    return Quietness(not reasons, load_per_core, jitter, others, steal, reasons)


def _work() -> int:
    """A fixed unit of work, about 100 microseconds, in cache and in this thread."""
    total = 0
    for value in range(2000):
        total += value * value
    return total


def _host_times() -> tuple[float, float, float] | None:
    """Total, busy and stolen seconds of all cores of the host since it started; None where it does not say."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    if len(words) < 8:
        return None
    user, nice, system, idle, waiting, interrupt, soft_interrupt, steal = (int(word) / 100 for word in words)
    busy = user + nice + system + interrupt + soft_interrupt
    return busy + idle + waiting + steal, busy, steal
