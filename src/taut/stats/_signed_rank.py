"""The Wilcoxon signed-rank interval for a centre of symmetry."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

# Up to this size the null distribution is counted exactly; above it the normal one is used, which errs on the wide
# side because the signed-rank statistic has lighter tails.
_LARGEST_EXACT = 200


@lru_cache(maxsize=256)
def critical_value(n: int, alpha: float) -> int:
    """Largest c with P(W <= c) <= alpha / 2 for the signed-rank statistic W of n values, or -1 if there is none."""
    if 2.0 ** (1 - n) > alpha:
        return -1
    if n > _LARGEST_EXACT:
        mean = n * (n + 1) / 4
        deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(alpha / 2) * deviation - 0.5)
    # Rank r goes to W with probability 1/2; only the lower half of the distribution is needed.
    size = n * (n + 1) // 4 + 1
    probabilities = np.zeros(size)
    probabilities[0] = 1.0
    for rank in range(1, n + 1):
        probabilities *= 0.5
        if rank < size:
            probabilities[rank:] += probabilities[:-rank].copy()
    return int(np.searchsorted(np.cumsum(probabilities), alpha / 2 * (1 + 1e-12), side="right")) - 1


def smallest_sample(alpha: float) -> int:
    """Fewest values from which an interval of level 1 - alpha exists."""
    return math.ceil(1 - math.log2(alpha))


def walsh_averages(values: np.ndarray) -> np.ndarray:
    """Averages of all pairs of values, each with itself included: shape (n,) to (n * (n + 1) / 2,)."""
    rows, columns = np.triu_indices(len(values))
    return (values[rows] + values[columns]) / 2


def hodges_lehmann(values: np.ndarray) -> float:
    """Median of the Walsh averages, the estimate of the centre that belongs to the signed-rank test."""
    return float(np.median(walsh_averages(values)))


def signed_rank_interval(values: np.ndarray, alpha: float) -> tuple[float, float]:
    """Interval for the centre of symmetry by inversion of the two-sided signed-rank test.

    Exact for any continuous symmetric distribution, conservative with ties. Source: Hollander, Wolfe and Chicken,
    Nonparametric Statistical Methods, 3rd edition, section 3.3 (Tukey's interval).

    Args:
        values: shape (n,), independent given their distances from the centre.
        alpha: the interval misses the centre with at most this probability.

    Returns:
        Both ends; minus and plus infinity if n is too small for the level.
    """
    cut = critical_value(len(values), alpha)
    if cut < 0:
        return -math.inf, math.inf
    averages = walsh_averages(values)
    last = len(averages) - 1 - cut
    ordered = np.partition(averages, (cut, last))
    return float(ordered[cut]), float(ordered[last])
