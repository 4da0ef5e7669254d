"""Intervals for differences in quality on the same samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap

from taut.errors import ArgumentError, MeasurementError
from taut.stats import paired_bootstrap


def mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda indices: float(values[indices].mean())


def test_the_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        interval = paired_bootstrap(mean_of(rng.normal(0.2, 1, 40)), 40, resamples=300, seed=seed)
        covered += interval.low <= 0.2 <= interval.high
    assert covered >= 51  # P(X < 51) < 0.01 at 95 %


def test_small_samples_agree_with_scipy_on_a_skewed_statistic() -> None:
    values = np.random.default_rng(2).exponential(1, 50)
    ours = paired_bootstrap(mean_of(values), 50, resamples=8000)
    theirs = bootstrap((values,), np.mean, n_resamples=8000, method="BCa", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_large_samples_need_no_evaluation_per_sample() -> None:
    calls = 0
    values = np.random.default_rng(0).normal(0, 1, 5000)

    def difference(indices: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        return float(values[indices].mean())

    interval = paired_bootstrap(difference, 5000, resamples=200)
    assert calls == 201
    assert interval.low < values.mean() < interval.high


def test_a_difference_that_never_varies_has_no_width() -> None:
    interval = paired_bootstrap(lambda indices: 0.0, 100)
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


def test_no_flip_among_n_predictions_is_not_taken_for_certainty() -> None:
    interval = paired_bootstrap(lambda indices: 0.0, 100, bounded=True)
    # A kind of sample with this share is missed in 100 draws with probability 2.5 %.
    assert (1 - interval.high) ** 100 == pytest.approx(0.025)
    assert interval.low == -interval.high


def test_one_lost_prediction_does_not_rule_out_a_gain() -> None:
    flips = np.zeros(200)
    flips[17] = -1
    assert paired_bootstrap(mean_of(flips), 200).high <= 0
    interval = paired_bootstrap(mean_of(flips), 200, bounded=True)
    assert interval.low < -0.01 < interval.high > 0


def test_the_bound_does_not_hide_a_clear_loss() -> None:
    flips = -(np.random.default_rng(0).random(1000) < 0.1).astype(float)
    assert paired_bootstrap(mean_of(flips), 1000, bounded=True).high < -0.07


def test_equal_seeds_give_equal_intervals() -> None:
    difference = mean_of(np.random.default_rng(0).normal(0, 1, 30))
    assert paired_bootstrap(difference, 30, seed=5) == paired_bootstrap(difference, 30, seed=5)
    assert paired_bootstrap(difference, 30, seed=5) != paired_bootstrap(difference, 30, seed=6)


def test_a_metric_that_is_undefined_on_a_resample_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="nan"):
        paired_bootstrap(lambda indices: float("nan"), 10)


@pytest.mark.parametrize("options", [{"n": 1}, {"resamples": 10}, {"confidence": 1.0}])
def test_arguments_out_of_range_are_named(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        paired_bootstrap(lambda indices: 0.0, **({"n": 10} | options))  # pyright: ignore[reportArgumentType]
