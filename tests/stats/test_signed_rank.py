"""The signed-rank interval against the enumeration of all signs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from taut.stats import _signed_rank
from taut.stats._signed_rank import critical_value, hodges_lehmann, signed_rank_interval, smallest_sample


def enumerated_p_value(values: np.ndarray, centre: float) -> float:
    """Two-sided p-value of the signed-rank test from all 2^n equally likely signs."""
    distances = values - centre
    ranks = np.argsort(np.argsort(np.abs(distances))) + 1
    seen = ranks[distances > 0].sum()
    signs = np.array(list(itertools.product((0, 1), repeat=len(values))))
    sums = signs @ ranks
    return min(1.0, 2 * min(np.mean(sums <= seen), np.mean(sums >= seen)))


@pytest.mark.parametrize("n", range(4, 11))
@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.01])
def test_interval_holds_exactly_the_centres_that_the_enumerated_test_accepts(n: int, alpha: float) -> None:
    values = np.random.default_rng(n).normal(0.3, 1, n)
    low, high = signed_rank_interval(values, alpha)
    if n < smallest_sample(alpha):
        assert (low, high) == (-math.inf, math.inf)
        assert enumerated_p_value(values, values.max() + 1) > alpha
        return
    step = 1e-9
    assert enumerated_p_value(values, low + step) > alpha >= enumerated_p_value(values, low - step)
    assert enumerated_p_value(values, high - step) > alpha >= enumerated_p_value(values, high + step)


@pytest.mark.parametrize("n", [12, 50, 200])
def test_critical_value_agrees_with_scipy(n: int) -> None:
    values = np.arange(1, n + 1, dtype=float)
    alpha, cut = 0.004, critical_value(n, 0.004)

    def p_value(statistic: int) -> float:
        signed, rest = values.copy(), statistic
        for rank in range(n, 0, -1):  # make the positive ranks sum to `statistic`
            if rank <= rest:
                rest -= rank
            else:
                signed[rank - 1] *= -1
        return float(np.asarray(wilcoxon(signed, method="exact"))[1])

    assert p_value(cut) <= alpha < p_value(cut + 1)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.0005])
def test_normal_tail_for_large_samples_is_never_narrower_than_the_exact_one(
    alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncached = critical_value.__wrapped__
    for n in (201, 300):
        approximate = uncached(n, alpha)
        with monkeypatch.context() as patch:
            patch.setattr(_signed_rank, "_LARGEST_EXACT", n)
            exact = uncached(n, alpha)
        assert 0.99 * exact < approximate <= exact


def test_estimate_is_the_median_of_the_pairwise_averages() -> None:
    assert hodges_lehmann(np.array([0.0, 1.0, 5.0])) == np.median([0, 0.5, 2.5, 1, 3, 5])
