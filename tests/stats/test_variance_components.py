"""Deviations, ratios and correlations against simulation, known values and the spec's formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import ArgumentError, DataError, MeasurementError
from taut.stats import bootstrap_deviation, correlated_scores, deviation_ratio, standard_deviation


def test_chi_square_interval_has_its_textbook_value() -> None:
    # s = 1 from n = 10: sqrt(9 / 19.0228) to sqrt(9 / 2.7004).
    scores = np.arange(10) / np.arange(10).std(ddof=1)
    interval = standard_deviation(scores)
    assert interval.estimate == pytest.approx(1)
    assert (interval.low, interval.high) == pytest.approx((0.68784, 1.82559), abs=1e-4)


def test_deviations_divide_by_n_minus_one() -> None:
    assert standard_deviation(np.array([0.0, 1.0])).estimate == pytest.approx(np.sqrt(0.5))
    assert bootstrap_deviation(np.array([0.0, 1.0])).estimate == pytest.approx(np.sqrt(0.5))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(0, 2, (400, 30))
    held = [(one := standard_deviation(row)).low <= 2 <= one.high for row in draws]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    shared = generator.normal(0, 1, (400, 20))
    first, second = (shared + generator.normal(0, 1, (400, 20)) for _ in range(2))
    held = [(one := deviation_ratio(1.5 * a, b)).low <= 1.5 <= one.high for a, b in zip(first, second, strict=True)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


@given(st.integers(2, 30), st.integers(2, 30), st.floats(0, 0.95), st.integers(0, 2**32))
def test_the_correlation_solves_the_papers_equation(repetitions: int, k: int, rho: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    shared = generator.normal(0, np.sqrt(rho), (repetitions, 1))
    found = correlated_scores(shared + generator.normal(0, np.sqrt(1 - rho), (repetitions, k)))
    expected = found.variance / k + (k - 1) / k * found.rho.estimate * found.variance
    # Means that vary less than independent scores would show no correlation rather than a negative one.
    assert found.std_of_mean.estimate**2 <= expected * (1 + 1e-9)
    assert found.rho.estimate == 0 or found.std_of_mean.estimate**2 == pytest.approx(expected)
    assert found.rho.low <= found.rho.estimate <= found.rho.high <= 1


def test_the_correlation_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    held, estimates = [], []
    for _ in range(400):
        scores = generator.normal(0, np.sqrt(0.3), (20, 1)) + generator.normal(0, np.sqrt(0.7), (20, 10))
        found = correlated_scores(scores)
        estimates.append(found.variance)
        held.append(found.rho.low <= 0.3 <= found.rho.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    assert np.mean(estimates) == pytest.approx(1, abs=0.03)


def test_the_ends_of_the_scale() -> None:
    assert deviation_ratio(np.zeros(5), np.arange(5.0)).high == 0
    same = deviation_ratio(np.arange(5.0), np.arange(5.0))
    assert (same.low, same.high) == pytest.approx((1, 1), abs=1e-6)


def test_scores_that_say_nothing_are_refused() -> None:
    for function in (standard_deviation, bootstrap_deviation):
        with pytest.raises(MeasurementError, match=r"1 score\(s\) say nothing"):
            function(np.array([1.0]))
        with pytest.raises(MeasurementError, match="not finite"):
            function(np.array([1.0, np.nan]))
    for nothing in (np.ones((3, 3)), np.ones((1, 3)), np.ones((3, 1))):
        with pytest.raises(DataError):
            correlated_scores(nothing)
    with pytest.raises(MeasurementError, match="all equal"):
        deviation_ratio(np.arange(3.0), np.ones(3))
    with pytest.raises(ArgumentError, match="as many scores"):
        deviation_ratio(np.arange(3.0), np.arange(4.0))
