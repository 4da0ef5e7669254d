"""Intervals for P(A>B) from paired wins, ties and losses, in closed form."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from taut.stats.decisions._correlated import lower_limit

Method = Literal["recommended", "percentile", "wilson", "clopper-pearson"]

# Below this many wins or losses the bootstrap knows too little of the rarer outcome (Brown, Cai and DasGupta, Interval
# Estimation for a Binomial Proportion, 2001, section 4).
_FEWEST_OF_EACH = 5


def percentile(wins: int, n: int, alpha: float, ties: int = 0) -> tuple[float, float]:
    """The interval at which the percentile bootstrap over pairs arrives with infinitely many resamples.

    A resample draws n pairs with replacement, so its wins are binomial; with ties, counted as half a win, twice its
    score is a sum of n draws from {0, 1, 2}, whose distribution is a power in the Fourier domain.
    """
    if not ties:
        from scipy.stats import binom

        low, high = binom.ppf((alpha / 2, 1 - alpha / 2), n, wins / n) / n
        return float(low), float(high)
    draw = np.array([n - wins - ties, ties, wins]) / n
    size = 1 << (2 * n + 1).bit_length()
    cumulative = np.cumsum(np.fft.irfft(np.fft.rfft(draw, size) ** n, size)[: 2 * n + 1])
    # The slack stands for the rounding of the transform.
    low, high = np.searchsorted(cumulative, (alpha / 2 - 1e-12, 1 - alpha / 2 - 1e-12))
    return float(low / (2 * n)), float(min(high, 2 * n) / (2 * n))


def wilson(wins: float, n: int, alpha: float) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson, 1927); wins may hold half ties."""
    from scipy.special import ndtri

    z = float(-ndtri(alpha / 2))
    share, weight = wins / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    width = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    # The ends are exactly 0 and 1 there; rounding would miss them.
    return (0.0 if wins == 0 else centre - width), (1.0 if wins == n else centre + width)


def exact(wins: int, n: int, alpha: float, ties: int = 0, correlation: float = 0.0) -> tuple[float, float]:
    """Clopper and Pearson's interval, widened for runs that share one hyper-parameter search.

    With ties, the interval of wins among the untied pairs, shrunk towards 1/2 by the share of ties: it excludes 1/2
    if and only if the sign test, which is conditional on the ties, does.
    """
    untied = n - ties
    low = lower_limit(wins, untied, alpha / 2, correlation)
    high = 1 - lower_limit(untied - wins, untied, alpha / 2, correlation)
    share = untied / n
    return 0.5 + share * (low - 0.5), 0.5 + share * (high - 0.5)


def recommended(wins: int, n: int, alpha: float, ties: int = 0, correlation: float = 0.0) -> tuple[float, float]:
    """The percentile bootstrap's interval where it can be trusted, else its hull with the exact one.

    It can be trusted where no outcome is rare, where the exact sign test agrees whether 1/2 is excluded, and
    where the runs are independent. Therefore both wrong verdicts at P(A>B) = 1/2 together have probability alpha
    at most, the interval always has a width, and a decision never turns when A wins once more.
    """
    low, high = percentile(wins, n, alpha, ties)
    score = wins + ties / 2
    exact_low, exact_high = exact(wins, n, alpha, ties, correlation)
    if correlation:
        return (exact_low, exact_high) if not ties else (min(low, exact_low), max(high, exact_high))
    refuted = (low > 0.5 >= exact_low) or (high < 0.5 <= exact_high)
    if min(score, n - score) < _FEWEST_OF_EACH or refuted:
        return min(low, exact_low), max(high, exact_high)
    return low, high


def paired_interval(
    wins: int, n: int, alpha: float, *, ties: int = 0, correlation: float = 0.0, method: Method = "recommended"
) -> tuple[float, float]:
    """Both ends for P(A>B), half of the ties counted, by the named method; one tie at most n - 1."""
    if method == "percentile":
        return percentile(wins, n, alpha, ties)
    if method == "wilson":
        return wilson(wins + ties / 2, n, alpha)
    if method == "clopper-pearson":
        return exact(wins, n, alpha, ties)
    return recommended(wins, n, alpha, ties, correlation)
