"""Whether all cores of a shared host are there."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

from taut.kernels import measure_hand_over

_PIECES = 60


def cores_together(threads: int = 2) -> float:
    """The rate of each thread beside the others as a share of its rate alone; near 1 where each has a core.

    Args:
        threads: that multiply matrices at once, about a tenth of a second.
    """
    barrier = Barrier(threads)

    def work(wait: bool) -> float:
        matrix, product = torch.randn(512, 512), torch.empty(512, 512)
        if wait:
            barrier.wait()
        times = []
        for _ in range(_PIECES):
            start = time.perf_counter()
            torch.mm(matrix, matrix, out=product)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work(wait=False)
        alone = work(wait=False)
        with ThreadPoolExecutor(threads) as pool:
            return alone / max(pool.map(work, [True] * threads))
    finally:
        torch.set_num_threads(kept)


def round_trip() -> float:
    """Seconds for a cache line to another core and back now, the median of several measurements; 0 on one core."""
    found = [measure_hand_over() for _ in range(5)]
    return statistics.median(one.round_trip if one is not None else 0.0 for one in found)
