"""P(A>B) over all pairs of runs, with Brunner and Munzel's variance.

Source: Brunner and Munzel, The nonparametric Behrens-Fisher problem, 2000; the interval on the scale of Phi^-1 follows
Brunner, Bathke and Konietschke, Rank and Pseudo-Rank Procedures, 2018, section 3.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from taut.stats.decisions._correlated import lower_limit, tail_probability


@dataclass(frozen=True)
class Superiority:
    """All-pairs estimate from unpaired runs.

    Attributes:
        wins: share of pairs in which A is strictly greater.
        ties: share of pairs in which both are equal.
        variance: of `wins + ties / 2`; 0 where the two samples do not overlap.
        freedom: degrees of freedom of Student's distribution (Satterthwaite).
        sizes: numbers of runs of A and of B, 2 or more each.
    """

    wins: float
    ties: float
    variance: float
    freedom: float
    sizes: tuple[int, int]

    @property
    def estimate(self) -> float:
        """P(A>B) with half of the ties."""
        return self.wins + self.ties / 2


def superiority(a: np.ndarray, b: np.ndarray) -> Superiority:
    """Count all pairs of a, shape (n,), and b, shape (m,), through sorting."""
    a, b = np.sort(a), np.sort(b)  # equal scores in another order give equal bits
    a_below, a_upto = (np.searchsorted(b, a, side=side) / len(b) for side in ("left", "right"))
    b_below, b_upto = (np.searchsorted(a, b, side=side) / len(a) for side in ("left", "right"))
    from_a = float(np.var((a_below + a_upto) / 2, ddof=1)) / len(a)
    from_b = float(np.var((b_below + b_upto) / 2, ddof=1)) / len(b)
    variance, freedom = from_a + from_b, float(len(a) + len(b) - 2)
    if variance > 0:
        freedom = variance**2 / (from_a**2 / (len(a) - 1) + from_b**2 / (len(b) - 1))
    wins, upto = float(a_below.mean()), float(a_upto.mean())
    return Superiority(wins, upto - wins, variance, freedom, (len(a), len(b)))


def interval(found: Superiority, alpha: float, correlation: float = 0.0) -> tuple[float, float]:
    """Interval for P(A>B).

    It is computed on the scale of Phi^-1, so that it stays within 0 and 1. Samples that do not overlap have no
    variance. They say at least as much as samples with one pair the other way round, so they get that one's inner
    end, and 0 or 1 as the outer one.

    With a correlation the within-search share of wins is taken for one of as many independent pairs as would have its
    variance, and goes through the model of `_correlated` as those do.
    """
    from scipy.special import ndtr, stdtrit

    if correlation:
        wins, n = _as_pairs(found)
        return lower_limit(wins, n, alpha / 2, correlation), 1 - lower_limit(n - wins, n, alpha / 2, correlation)
    centre, deviation = _on_normal_scale(found)
    half = -float(stdtrit(found.freedom, alpha / 2)) * deviation
    low, high = float(ndtr(centre - half)), float(ndtr(centre + half))
    return (0.0 if found.estimate == 0 else low), (1.0 if found.estimate == 1 else high)


def p_value(found: Superiority, correlation: float = 0.0) -> float:
    """The smallest alpha at which `interval` excludes 1/2."""
    from scipy.special import stdtr

    if correlation:
        wins, n = _as_pairs(found)
        return min(1.0, 2 * tail_probability(max(wins, n - wins), n, 0.0, correlation))
    centre, deviation = _on_normal_scale(found)
    return 2 * float(stdtr(found.freedom, -abs(centre) / deviation))


def normal_variance(n: int, m: int, theta: float) -> float:
    """Variance of the share of wins among all pairs of n and m normal scores of one variance, P(A>B) = Phi(theta)."""
    from scipy.special import ndtr, owens_t

    share = float(ndtr(theta))
    both = share - 2 * float(owens_t(theta, math.sqrt(1 / 3)))  # P(A > B1 and A > B2), by symmetry P(A1, A2 > B)
    return (share * (1 - share) + (n + m - 2) * (both - share**2)) / (n * m)


def _on_normal_scale(found: Superiority) -> tuple[float, float]:
    """Phi^-1 of the estimate and its standard deviation; without overlap those of one pair the other way round."""
    from scipy.special import ndtri

    one_pair = 1 / (found.sizes[0] * found.sizes[1])
    variance = 2 * one_pair**2 if found.estimate in (0, 1) else found.variance
    centre = float(ndtri(min(max(found.estimate, one_pair), 1 - one_pair)))
    density = math.exp(-(centre**2) / 2) / math.sqrt(2 * math.pi)
    return centre, math.sqrt(variance) / density


def _as_pairs(found: Superiority) -> tuple[float, float]:
    """Wins and number of the independent pairs whose share of wins would have the same variance.

    A variance below that of normal scores, which few runs show by chance, is not believed; nor is one above that of
    independent pairs, since all pairs know no less (van Dantzig, 1951).
    """
    from scipy.special import ndtri

    share, fewest = found.estimate, min(found.sizes)
    if share in (0, 1):
        return share * fewest, fewest
    variance = max(found.variance, normal_variance(*found.sizes, float(ndtri(share))))
    n = max(fewest, share * (1 - share) / variance)
    return share * n, n
