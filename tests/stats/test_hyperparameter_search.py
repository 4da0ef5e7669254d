"""The in-house searches do what the paper's appendix says; Optuna obeys the same protocol."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import ArgumentError, MeasurementError
from taut.stats import NoisyGrid, OptunaSearch, RandomSearch, Range, Search

SPACE = {"rate": Range(1e-3, 1e-1, 1e-2, log=True), "momentum": Range(0.5, 0.9, 0.8)}


def searched(search: Search, seed: int = 0) -> tuple[list[dict[str, float]], dict[str, float]]:
    """All points that a search tries where the score is the rate, and the best."""
    trials = search.trials(SPACE, np.random.default_rng(seed))
    points = list(batch := next(trials))
    while True:
        try:
            batch = trials.send([point["rate"] for point in batch])
        except StopIteration as stop:
            return points, stop.value
        points += batch


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_a_noisy_grid_is_evenly_spaced_between_ends_moved_by_half_a_step(seed: int, steps: int) -> None:
    points, best = searched(NoisyGrid(steps), seed)
    assert len(points) == steps**2 == NoisyGrid(steps).count(SPACE)
    rates = sorted({math.log(point["rate"]) for point in points})
    low, high = math.log(1e-3), math.log(1e-1)
    half = (high - low) / (steps - 1) / 2
    assert abs(rates[0] - low) <= half + 1e-12
    assert abs(rates[-1] - high) <= half + 1e-12
    assert np.ptp(np.diff(rates)) == pytest.approx(0, abs=1e-9)
    assert best["rate"] == max(point["rate"] for point in points)


def test_random_search_covers_the_widened_range_evenly() -> None:
    # 100 trials in two dimensions: a grid of 10 x 10, so each range grows by 1/18 at both ends.
    drawn = [point for seed in range(40) for point in searched(RandomSearch(100), seed)[0]]
    momenta = np.array([point["momentum"] for point in drawn])
    rates = np.log10([point["rate"] for point in drawn])
    assert momenta.min() == pytest.approx(0.5 - 0.4 / 18, abs=1e-3)
    assert momenta.max() == pytest.approx(0.9 + 0.4 / 18, abs=1e-3)
    assert rates.min() == pytest.approx(-3 - 2 / 18, abs=5e-3)
    assert rates.max() == pytest.approx(-1 + 2 / 18, abs=5e-3)
    assert np.mean(rates) == pytest.approx(-2, abs=0.05)


def test_the_search_depends_on_its_generator_alone() -> None:
    assert searched(RandomSearch(5), 1) == searched(RandomSearch(5), 1)
    assert searched(RandomSearch(5), 1) != searched(RandomSearch(5), 2)


def test_whole_numbers_and_hard_limits_hold_however_a_range_is_widened() -> None:
    space = {"layers": Range(1, 4, 2, integer=True, minimum=1), "momentum": Range(0.5, 0.99, 0.9, maximum=0.995)}
    for seed in range(20):
        for point in next(RandomSearch(30).trials(space, np.random.default_rng(seed))):
            assert point["layers"] == round(point["layers"]) >= 1
            assert point["momentum"] <= 0.995


def test_failed_trials_are_out_of_the_running() -> None:
    trials = RandomSearch(3).trials(SPACE, np.random.default_rng(0))
    points = next(trials)
    with pytest.raises(StopIteration) as stop:
        trials.send([None, -5.0, None])
    assert stop.value.value == points[1]
    trials = RandomSearch(2).trials(SPACE, np.random.default_rng(0))
    next(trials)
    with pytest.raises(MeasurementError, match="all 2 fits"):
        trials.send([None, None])


def test_optuna_asks_for_a_point_at_a_time_and_repeats_itself() -> None:
    if find_spec("optuna") is None:
        pytest.skip("the package optuna of the study extra is not installed")
    points, best = searched(OptunaSearch(15))
    assert len(points) == 15 == OptunaSearch(15).count(SPACE)
    assert best == max(points, key=lambda point: point["rate"])
    assert searched(OptunaSearch(15)) == (points, best)
    assert all(1e-3 <= point["rate"] <= 0.1 + 1e-12 for point in points)


def test_ranges_and_budgets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ArgumentError, match="Range") as caught:
        Range(0, 1, 0.001, log=True)  # as printed in the paper for the L2 penalty of the MLP
    assert "floor" in str(caught.value)
    for low, high in ((1, 1), (2, 1), (0, math.inf)):
        with pytest.raises(ArgumentError, match="low < high"):
            Range(low, high, 1)
    with pytest.raises(ArgumentError, match="budget"):
        RandomSearch(0)
    with pytest.raises(ArgumentError, match="steps"):
        NoisyGrid(1)
    with pytest.raises(ArgumentError, match="space"):
        RandomSearch(2).count({})
