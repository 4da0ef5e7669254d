"""P(A>B) over all pairs of runs.

The share of wins among all pairs varies as much as that among some smaller number of independent pairs. It is taken
for that one, so that unpaired runs go through the distributions of paired ones. The variance is that of Brunner and
Munzel, The nonparametric Behrens-Fisher problem, 2000; an exact interval with an effective number is Korn and
Graubard's, Confidence intervals for proportions with small expected number of positive counts, 1998. Both are good for
large numbers only: with few runs, small alphas and samples that hardly overlap it is too sure. So 1/2 is excluded only
where the exact rank test agrees, which makes the error of systems with equal distributions alpha at most (without
ties); what else few runs took is measured in docs/decisions/0008.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from taut.stats.decisions._correlated import lower_limit, tail_probability
from taut.stats.decisions._rank_test import rank_test

# An exact binomial interval takes wins to come in whole pairs, and is too wide by up to half a win where they do not.
# Runs that share a search get half of that back, or some of the errors would exceed alpha; few runs get nothing.
_FEW_RUNS = 8
_CONTINUITY, _CORRELATED_CONTINUITY = 0.5, 0.25


@dataclass(frozen=True)
class Superiority:
    """All-pairs estimate from unpaired runs.

    Attributes:
        wins: share of pairs in which A is strictly greater.
        ties: share of pairs in which both are equal.
        variance: of `wins + ties / 2`; 0 where the two samples do not overlap.
        freedom: degrees of freedom of that variance (Satterthwaite).
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
    from_a, from_b = (
        float(np.var(places, ddof=1)) / len(places) if np.ptp(places) else 0.0  # rounding would show a variance
        for places in ((a_below + a_upto) / 2, (b_below + b_upto) / 2)
    )
    variance, freedom = from_a + from_b, float(len(a) + len(b) - 2)
    if variance > 0:
        freedom = variance**2 / (from_a**2 / (len(a) - 1) + from_b**2 / (len(b) - 1))
    wins, upto = float(a_below.mean()), float(a_upto.mean())
    return Superiority(wins, upto - wins, variance, freedom, (len(a), len(b)))


def interval(found: Superiority, alpha: float, correlation: float = 0.0) -> tuple[float, float]:
    """Interval for P(A>B): Clopper and Pearson's for the equivalent pairs, less what that is too wide.

    Where it excludes 1/2 and the exact rank test does not, it is drawn out to 1/2. Samples that do not overlap get 0 or
    1 as the outer end.
    """
    wins, losses, continuity = _as_pairs(found, correlation)
    low = lower_limit(wins + continuity, wins + losses, alpha / 2, correlation)
    high = 1 - lower_limit(losses + continuity, wins + losses, alpha / 2, correlation)
    if not low <= 0.5 <= high and _rank_test(found) > alpha:
        low, high = min(low, 0.5), max(high, 0.5)
    return min(low, found.estimate), max(high, found.estimate)


def p_value(found: Superiority, correlation: float = 0.0) -> float:
    """The smallest alpha at which `interval` excludes 1/2."""
    wins, losses, continuity = _as_pairs(found, correlation)
    more = max(wins, losses) + continuity
    return min(1.0, max(2 * tail_probability(more, wins + losses, 0.0, correlation), _rank_test(found)))


def _rank_test(found: Superiority) -> float:
    return rank_test(min(found.estimate, 1 - found.estimate) * math.prod(found.sizes), found.sizes)


def normal_variance(n: int, m: int, theta: float) -> float:
    """Variance of the share of wins among all pairs of n and m normal scores of one variance, P(A>B) = Phi(theta)."""
    from scipy.special import ndtr, owens_t

    share = float(ndtr(theta))
    both = share - 2 * float(owens_t(theta, math.sqrt(1 / 3)))  # P(A > B1 and A > B2), by symmetry P(A1, A2 > B)
    return (share * (1 - share) + (n + m - 2) * (both - share**2)) / (n * m)


def _as_pairs(found: Superiority, correlation: float) -> tuple[float, float, float]:
    """Wins and losses of as many independent pairs as would have the same variance, and the continuity correction.

    A variance below that of normal scores, which few runs show by chance, is not believed; nor is one above that of
    independent pairs, since all pairs know no less (van Dantzig, 1951). Of sizes that differ, the smaller sample may be
    the one that varies more, and the variance rests on its few runs alone: it is enlarged as that of Student's
    distribution is, in so far as they differ. Shares nearer to 0 or 1 than the approximation carries count as its
    limit.
    """
    from scipy.special import ndtri

    fewest, most = sorted(found.sizes)
    nearest = min(1 / (3 * fewest), 6 / (fewest * most))
    share = min(max(found.estimate, nearest), 1 - nearest)
    student = found.freedom / (found.freedom - 2) if found.freedom > 2 else math.inf
    variance = found.variance * student ** (1 - fewest / most) if found.variance else 0.0
    variance = max(variance, normal_variance(*found.sizes, float(ndtri(share))))
    pairs = max(fewest, share * (1 - share) / variance)
    continuity = _CORRELATED_CONTINUITY if correlation else _CONTINUITY
    return share * pairs, (1 - share) * pairs, continuity if fewest >= _FEW_RUNS else 0.0
