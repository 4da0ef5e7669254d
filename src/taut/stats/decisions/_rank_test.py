"""The exact rank test of two unpaired samples (Mann and Whitney, 1947)."""

from __future__ import annotations

import functools
import math

import numpy as np

# Up to so many pairs the distribution is counted out; above it the normal one is close, and its tails are heavier.
_MOST_PAIRS = 10_000


def rank_test(fewer: float, sizes: tuple[int, int]) -> float:
    """Two-sided p-value of the hypothesis that both samples have one distribution, exact for scores without ties.

    Args:
        fewer: pairs that the system behind wins, half of the ties included; up to half of all. Half a pair counts as a
            whole one. Ties make the true p-value smaller but for very few runs.
        sizes: numbers of runs of A and of B.
    """
    n, m = sorted(sizes)
    wins = math.ceil(fewer - 1e-6)
    if n * m <= _MOST_PAIRS:
        return min(1.0, 2 * float(_tails(n, m)[min(wins, n * m // 2)]))
    from scipy.special import ndtr

    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    return min(1.0, 2 * float(ndtr((wins + 0.5 - n * m / 2) / deviation)))


@functools.lru_cache(maxsize=64)
def _tails(n: int, m: int) -> np.ndarray:
    """P(at most u wins) for u up to half of all n m pairs, n <= m, of equal systems.

    The orders with u wins are the coefficients of the Gaussian binomial, the product of (1 - q^(m + i)) / (1 - q^i).
    """
    size = n * m // 2 + 1
    orders = np.zeros(size)
    orders[0] = 1
    for i in range(1, n + 1):
        if m + i < size:
            orders[m + i :] -= orders[: size - m - i].copy()
        padded = np.zeros(-(-size // i) * i)
        padded[:size] = orders
        orders = padded.reshape(-1, i).cumsum(axis=0).ravel()[:size]  # division by 1 - q^i
    return np.cumsum(orders) / math.comb(n + m, n)
