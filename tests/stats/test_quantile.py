"""Quantiles: coverage, and the refusal of what a sample cannot carry."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from taut.errors import ArgumentError, MeasurementError
from taut.stats import Sample, quantile_interval


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.5, 31), (0.9, 60), (0.99, 368), (0.01, 400)])
def test_coverage_is_what_the_interval_says(q: float, n: int) -> None:
    draws = np.random.default_rng(1).random((800, n))  # the quantile q of the uniform distribution is q
    intervals = [quantile_interval(row, q) for row in draws]
    covered = np.mean([interval.low <= q <= interval.high for interval in intervals])
    stated = intervals[0].confidence
    assert stated >= 0.95
    assert abs(covered - stated) < 4 * (stated * (1 - stated) / 800) ** 0.5 + 1e-9


@pytest.mark.parametrize(("q", "needed"), [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3688), (0.01, 368)])
def test_the_smallest_sample_is_the_first_whose_extremes_bound_the_quantile(q: float, needed: int) -> None:
    with pytest.raises(MeasurementError, match=f"{needed} values or more"):
        quantile_interval(np.arange(needed - 1), q)
    interval = quantile_interval(np.arange(needed), q)
    assert max(binom.cdf(0, needed - 1, q), binom.sf(needed - 2, needed - 1, q)) > 0.025
    assert interval.low == 0 or interval.high == needed - 1


def test_order_and_ties_do_not_matter() -> None:
    assert quantile_interval([3.0, 1, 2, 2, 2, 9, 2, 2], 0.5).estimate == 2
    shuffled = np.random.default_rng(0).permutation(100)
    assert quantile_interval(shuffled, 0.5) == quantile_interval(np.arange(100), 0.5)


@pytest.mark.parametrize("q", [0, 1, 1.5, -0.1])
def test_quantiles_outside_the_unit_interval_are_refused(q: float) -> None:
    with pytest.raises(ArgumentError, match="q"):
        quantile_interval(range(100), q)


@pytest.mark.parametrize("values", [[1.0, float("nan")] * 10, np.zeros((10, 10))])
def test_values_that_are_not_a_row_of_finite_numbers_are_refused(values: np.ndarray) -> None:
    with pytest.raises(MeasurementError, match="finite"):
        quantile_interval(values, 0.5)


def test_means_of_several_calls_say_nothing_on_the_quantiles_of_one() -> None:
    seconds = tuple(np.random.default_rng(0).random(1000))
    assert Sample(seconds, 1, "wall").quantile(0.99).confidence >= 0.95
    with pytest.raises(MeasurementError, match="mean of 8 calls"):
        Sample(seconds, 8, "wall").quantile(0.99)
