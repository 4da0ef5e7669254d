"""The costs of collectives: formulas, fits that find what was put in, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import ArgumentError, MeasurementError
from taut.hardware import (
    FORMS,
    CollectiveTiming,
    LinkModel,
    fit_links,
    fit_times,
    measured_bandwidth,
    ring_all_reduce,
)

MEGABIT = 1e6 / 8
# Fixed seconds, seconds a round, seconds of software a byte, link bytes a byte.
TRUE = {
    "all_reduce": (1e-4, 5e-5, 4e-10, 1.05),
    "all_gather": (5e-5, 1e-4, 1e-9, 1.07),
    "all_to_all": (8e-5, 7e-5, 8e-10, 1.06),
}


def true_model() -> LinkModel:
    return LinkModel({name: np.array([row]) for name, row in TRUE.items()}, dict.fromkeys(TRUE, np.ones(1)))


def timings(noise: float = 0.0, ranks: tuple[int, ...] = (2, 3), repeats: int = 5) -> list[CollectiveTiming]:
    generator = np.random.default_rng(3)
    model = true_model()
    return [
        CollectiveTiming(name, size, count, rate, float(model.seconds(name, size, count, rate)[0]) * factor)
        for name in TRUE
        for size in (256, 2**16, 2**20, 2**22, 2**24)
        for count in ranks
        for rate in (None, 100 * MEGABIT, 1000 * MEGABIT)
        for factor in 1 + noise * np.abs(generator.normal(size=repeats))
    ]


@pytest.mark.parametrize(
    ("collective", "ranks", "rounds", "share"),
    [
        ("all_reduce", 2, 2, 1.0),
        ("all_reduce", 4, 6, 1.5),
        ("all_gather", 2, 1, 1.0),
        ("all_gather", 4, 3, 3.0),
        ("all_to_all", 4, 3, 0.75),
    ],
)
def test_rounds_and_bytes_of_each_collective(collective: str, ranks: int, rounds: float, share: float) -> None:
    assert FORMS[collective].counts(ranks) == (rounds, share)


@pytest.mark.parametrize(
    ("megabits", "ranks", "megabytes", "milliseconds"),
    [(100, 2, 1, 80), (100, 4, 4, 480), (500, 2, 20, 320), (500, 4, 20, 480), (1000, 4, 20, 240)],
)
def test_the_ring_formula_gives_the_published_predictions(
    megabits: float, ranks: int, megabytes: float, milliseconds: float
) -> None:
    assert ring_all_reduce(megabytes * 1e6, ranks, megabits * MEGABIT) == pytest.approx(milliseconds / 1e3)


def test_a_fit_finds_the_costs_that_made_the_times() -> None:
    model = fit_links(timings())
    for name, row in TRUE.items():
        assert model.coefficients[name][0] == pytest.approx(row, rel=1e-3)


def test_a_fit_on_some_rates_and_ranks_predicts_the_others() -> None:
    model = fit_links(timings(noise=0.05))
    for name in TRUE:
        for ranks, rate in ((4, 50), (4, 200), (8, 500)):
            expected = true_model().seconds(name, 2**21, ranks, rate * MEGABIT)[0]
            assert model.seconds(name, 2**21, ranks, rate * MEGABIT)[0] == pytest.approx(expected, rel=0.08)


def test_one_disturbed_set_up_does_not_bend_the_line() -> None:
    disturbed = [
        CollectiveTiming(one.collective, one.size, one.ranks, one.bandwidth, one.seconds * 10)
        if (one.size, one.ranks, one.bandwidth) == (2**20, 3, None)
        else one
        for one in timings()
    ]
    found = fit_links(disturbed).seconds("all_reduce", 2**22, 4, 200 * MEGABIT)[0]
    assert found == pytest.approx(true_model().seconds("all_reduce", 2**22, 4, 200 * MEGABIT)[0], rel=0.05)


def test_noisier_times_give_wider_draws() -> None:
    spread = [np.std(fit_links(timings(noise)).seconds("all_gather", 2**20, 4, None)) for noise in (0.01, 0.3)]
    assert spread[0] < spread[1]


@given(
    st.sampled_from(sorted(TRUE)),
    st.floats(1e3, 1e9),
    st.integers(2, 64),
    st.floats(1e5, 1e11),
    st.floats(1.001, 100),
)
def test_more_bytes_more_ranks_and_slower_links_take_longer(
    name: str, size: float, ranks: int, bandwidth: float, factor: float
) -> None:
    model = true_model()
    seconds = model.seconds(name, size, ranks, bandwidth)[0]
    assert model.seconds(name, size * factor, ranks, bandwidth)[0] > seconds
    assert model.seconds(name, size, ranks + 1, bandwidth)[0] > seconds
    assert model.seconds(name, size, ranks, bandwidth * factor)[0] < seconds
    assert model.seconds(name, size, ranks, None)[0] < seconds
    assert model.seconds(name, size, ranks, bandwidth, crowding=2.0)[0] > seconds


def test_one_rank_and_no_bytes_cost_nothing() -> None:
    assert true_model().seconds("all_reduce", 1e6, 1, 1e6).tolist() == [0.0]
    assert true_model().seconds("all_reduce", 0, 4, 1e6).tolist() == [0.0]


def test_the_bandwidth_of_a_link_is_found_from_times_over_it() -> None:
    own = [one for one in timings() if one.bandwidth == 1000 * MEGABIT]
    loopback = fit_links([one for one in timings() if one.bandwidth is None])
    # The headers are assumed, 1.046 bytes for each; the times were made with 1.05 to 1.07.
    assert measured_bandwidth(own, loopback) == pytest.approx(1000 * MEGABIT, rel=0.03)


def test_the_bandwidth_of_a_slow_link_is_found_from_the_sizes_that_it_carries_in_time() -> None:
    loopback = fit_links([one for one in timings() if one.bandwidth is None])
    own = [
        CollectiveTiming(name, size, 8, None, float(true_model().seconds(name, size, 8, 10 * MEGABIT)[0]))
        for name in TRUE
        for size in (256, 2**16, 2**18)
    ]
    assert measured_bandwidth(own, loopback) == pytest.approx(10 * MEGABIT, rel=0.03)


def test_a_link_as_fast_as_loopback_has_no_bandwidth() -> None:
    own = [one for one in timings() if one.bandwidth is None]
    with pytest.raises(MeasurementError, match="loopback"):
        measured_bandwidth(own, fit_links([*own, *timings(noise=0.2)]))


def test_a_model_survives_json() -> None:
    model = fit_links(timings(noise=0.1))
    again = LinkModel.from_dict(json.loads(json.dumps(model.to_dict())))
    for name in TRUE:
        assert np.array_equal(again.coefficients[name], model.coefficients[name])
        assert np.array_equal(again.scatter[name], model.scatter[name])


@pytest.mark.parametrize(
    "broken",
    [
        {"broadcast": {"coefficients": [[0, 0, 0, 1]], "scatter": [1]}},
        {"all_reduce": {"coefficients": [[0, 0, 1]], "scatter": [1]}},
        {"all_reduce": {"coefficients": [[0, 0, 0, -1]], "scatter": [1]}},
        {"all_reduce": {"coefficients": [[0, 0, 0, float("nan")]], "scatter": [1]}},
        {"all_reduce": {"coefficients": [[0, 0, 0, 1]], "scatter": [0]}},
        {"all_reduce": {"coefficients": [[0, 0, 0, 1]], "scatter": [1, 1]}},
        {"all_reduce": {"coefficients": []}},
        {"all_reduce": 3},
    ],
)
def test_a_broken_model_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        LinkModel.from_dict(broken)


def test_refusals() -> None:
    model = true_model()
    with pytest.raises(ArgumentError, match="broadcast"):
        model.seconds("broadcast", 1, 2, None)
    with pytest.raises(ArgumentError, match="ranks"):
        model.seconds("all_reduce", 1, 0, None)
    with pytest.raises(ArgumentError, match="bandwidth"):
        model.seconds("all_reduce", 1, 2, 0.0)
    with pytest.raises(MeasurementError, match="one size"):
        fit_links([CollectiveTiming("all_reduce", 256, 2, None, 1.0)])
    with pytest.raises(MeasurementError, match="positive"):
        fit_times(np.ones((2, 1)), np.array([1.0, 0.0]))
