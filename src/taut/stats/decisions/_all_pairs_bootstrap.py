"""The percentile bootstrap over all pairs of unpaired runs, without resampling."""

from __future__ import annotations

import math

import numpy as np


def bootstrap_interval(a: np.ndarray, b: np.ndarray, alpha: float) -> tuple[float, float]:
    """Where the percentile bootstrap of the share of wins among all pairs ends, a and b resampled, without resampling.

    The first three moments of its distribution are known (Hoeffding's decomposition of the two-sample U-statistic);
    Cornish and Fisher's expansion turns them into quantiles. The error fades with 1 / n.
    """
    from scipy.special import ndtri

    n, m = len(a), len(b)
    order = np.sort(b)
    places = [np.searchsorted(order, a, side=side) for side in ("left", "right")]
    wins = (places[0] + places[1]) / (2 * m)
    others = [np.searchsorted(np.sort(a), order, side=side) for side in ("left", "right")]
    losses = 1 - (others[0] + others[1]) / (2 * n)  # of each b: the share of a that beats it
    share = float(wins.mean())
    from_a, from_b = wins - share, losses - share
    ties = float(np.mean(places[1] - places[0])) / m
    single = share - ties / 4 - share**2  # variance of one pair's outcome 0, 1/2 or 1
    variance = ((m - 1) * np.mean(from_a**2) + (n - 1) * np.mean(from_b**2) + single) / (n * m)
    # Mean of from_a[i] from_b[j] outcome[i, j] over all pairs, through running sums.
    sums = np.concatenate([[0.0], np.cumsum(from_b)])
    both = float(np.mean(from_a * (sums[places[0]] + sums[places[1]]) / (2 * m)))
    third = np.mean(from_a**3) / n**2 + np.mean(from_b**3) / m**2 + 6 * both / (n * m)
    if variance <= 0:
        return share, share
    z = ndtri(np.array([alpha / 2, 1 - alpha / 2]))
    low, high = share + math.sqrt(variance) * (z + (z**2 - 1) * third / variance**1.5 / 6)
    return max(0.0, float(low)), min(1.0, float(high))
