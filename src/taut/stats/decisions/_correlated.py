"""Wins among runs that share one hyper-parameter search.

The model: every run's score is normal with variance V, of which a share rho (the correlation) comes from the search
that all runs of one system share. Runs i of A and B differ, in units of sqrt(2 V), by

    theta + sqrt(rho) Z + sqrt(1 - rho) e_i,    Z, e_i standard normal,

so P(A>B) = Phi(theta) over searches, while within these two searches the n wins are binomial with the probability
Phi((theta + sqrt(rho) Z) / sqrt(1 - rho)). No number of runs shrinks the part of Z. That is the floor
Var(mean) = V/k + (k-1)/k rho V of "Accounting for Variance in Machine Learning Benchmarks" (2021), section 3.2.
"""

from __future__ import annotations

import math

import numpy as np

# Below this correlation the shared part is far smaller than what any affordable number of runs resolves.
_NEGLIGIBLE = 1e-6


def tail_probability(wins: float, n: float, theta: float, correlation: float) -> float:
    """P(at least `wins` of n) where P(A>B) = Phi(theta)."""
    from scipy.special import betainc, ndtr

    if wins <= 0:
        return 1.0
    if wins >= n + 1:
        return 0.0
    if correlation < _NEGLIGIBLE:
        return float(betainc(wins, n - wins + 1, ndtr(theta)))
    nodes, weights = _thresholds(wins, n, correlation)
    return float(weights @ ndtr((theta - math.sqrt(1 - correlation) * nodes) / math.sqrt(correlation)))


def lower_limit(wins: float, n: float, tail: float, correlation: float) -> float:
    """The P(A>B) at which `wins` or more of n have probability `tail`; by symmetry it gives upper limits too."""
    if wins <= 0:
        return 0.0
    from scipy.special import betaincinv, ndtr, ndtri

    if correlation < _NEGLIGIBLE:
        return float(betaincinv(wins, n - wins + 1, tail))
    from scipy.optimize import brentq

    nodes, weights = _thresholds(wins, n, correlation)
    inner, outer = math.sqrt(1 - correlation), math.sqrt(correlation)

    def excess(theta: float) -> float:
        return float(weights @ ndtr((theta - inner * nodes) / outer)) - tail

    reach = outer * abs(float(ndtri(tail)))
    low, high = inner * nodes[0] - reach - outer, inner * nodes[-1] - reach + outer
    # The tail lies within that of every node, so its root does too.
    return float(ndtr(brentq(excess, low, high, xtol=1e-10)))


def _thresholds(wins: float, n: float, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights, shape (m,): P(at least `wins` | p) as a mean over thresholds for Phi^-1(p).

    P(at least `wins` of n | p) is the probability that a Beta(wins, n - wins + 1) variable is below p. On the scale
    of Phi^-1 that variable has a smooth, log-concave density, for which equal steps converge exponentially.
    """
    from scipy.special import betaincinv, betaln, log_ndtr, ndtri

    losses = n - wins
    low = float(ndtri(betaincinv(wins, losses + 1, 1e-14)))
    high = -float(ndtri(betaincinv(losses + 1, wins, 1e-14)))
    # The steps resolve the density and the normal distribution function that it is averaged over.
    step = min((high - low) / 64, math.sqrt(correlation / (1 - correlation)) / 2)
    nodes = np.linspace(low, high, math.ceil((high - low) / step) + 1)
    logarithm = (wins - 1) * log_ndtr(nodes) + losses * log_ndtr(-nodes) - nodes**2 / 2 - betaln(wins, losses + 1)
    weights = np.exp(logarithm - logarithm.max())
    return nodes, weights / weights.sum()
