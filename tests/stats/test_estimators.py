"""Estimators ask for exactly the fits that the paper's algorithms ask for, with exactly the right sources moved."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import toy_experiment
from toy_experiment import Toy

from taut.errors import ArgumentError, MeasurementError
from taut.stats import (
    FixedHyperparameterEstimator,
    IdealEstimator,
    NoisyGrid,
    RandomSearch,
    Study,
    VarianceBySource,
    plan_cost,
    time_fit,
)

Asked = list[tuple[str, dict[str, float], dict[str, int]]]


def asked(part: Any) -> Asked:
    toy = Toy()
    Study("count", toy, [part]).run()
    return toy.asked


def distinct(runs: Asked, source: str, phase: str = "score") -> int:
    return len({seeds[source] for kind, _, seeds in runs if kind == phase})


@pytest.mark.parametrize(("k", "trials"), [(1, 1), (3, 5), (7, 2)])
def test_the_ideal_estimator_makes_k_searches_and_k_final_fits(k: int, trials: int) -> None:
    part = IdealEstimator(k, RandomSearch(trials))
    runs = asked(part)
    assert Counter(phase for phase, _, _ in runs) == {"validate": k * trials, "score": k}
    assert part.fits(Toy()) == len(runs) == k * (trials + 1)
    for source in Toy.sources:
        assert distinct(runs, source) == k
    # Every search is a new one: no two final fits share their hyper-parameters, and each took the best of its trials.
    finals = {tuple(point.items()): seeds for phase, point, seeds in runs if phase == "score"}
    assert len(finals) == k
    for point, seeds in finals.items():
        tried = [dict(trial) for phase, trial, own in runs if phase == "validate" and own == seeds]
        assert len(tried) == trials
        assert dict(point) == min(tried, key=lambda trial: abs(trial["rate"] - 0.3))


@pytest.mark.parametrize(
    ("vary", "moved"),
    [
        ("init", {"initialisation"}),
        ("data", {"data_split"}),
        ("all", set(Toy.sources)),
        (("data_order", "data_split"), {"data_order", "data_split"}),
    ],
)
def test_the_fixed_estimator_searches_once_and_moves_what_it_should(vary: Any, moved: set[str]) -> None:
    part = FixedHyperparameterEstimator(6, RandomSearch(4), vary)
    runs = asked(part)
    assert Counter(phase for phase, _, _ in runs) == {"validate": 4, "score": 6}
    assert part.fits(Toy()) == len(runs) == 4 + 6
    for source in Toy.sources:
        assert distinct(runs, source) == (6 if source in moved else 1)
        assert distinct(runs, source, "validate") == 1
    assert len({tuple(point.items()) for phase, point, _ in runs if phase == "score"}) == 1


def test_repetitions_draw_everything_anew_and_share_their_search_between_estimators() -> None:
    toy = Toy()
    search = RandomSearch(4)
    both = [FixedHyperparameterEstimator(6, search, vary, repetitions=3) for vary in ("init", "all")]
    study = Study("repeated", toy, both)
    study.run()
    assert study.fits == 2 * 3 * (4 + 6)
    assert Counter(phase for phase, _, _ in toy.asked) == {"validate": 3 * 4, "score": 2 * 3 * 6}
    assert distinct(toy.asked, "data_split", "validate") == 3


def test_the_cost_planner_reproduces_the_papers_fits() -> None:
    # T = 200: "51 times" in hours for BERT and others; 67 times in fits.
    search = RandomSearch(200)
    ideal = plan_cost(IdealEstimator(100, search), Toy(), 192.0)
    fixed = plan_cost(FixedHyperparameterEstimator(100, search), Toy(), 192.0)
    assert (ideal.fits, fixed.fits) == (20_100, 300)
    assert ideal.hours == pytest.approx(1072)
    assert fixed.hours == pytest.approx(16)
    assert plan_cost(IdealEstimator(100, search), Toy(), 192.0, workers=100).hours == pytest.approx(10.72)
    assert plan_cost(IdealEstimator(2, NoisyGrid(3)), Toy(), 1.0).fits == 2 * (9 + 1)
    assert time_fit(Toy()) > 0


def test_variance_by_source_moves_one_source_at_a_time() -> None:
    part = VarianceBySource(5, noise=2, search=RandomSearch(4), searches=3)
    runs = asked(part)
    # 3 sources and all together, 5 runs each; the noise; 3 searches, whose end points are distinct here.
    assert part.fits(Toy()) == 5 * 4 + 2 + 3 * (4 + 1) == len(runs)
    base = Counter(tuple(seeds.items()) for _, _, seeds in runs).most_common(1)[0][0]
    moves = Counter(
        tuple(source for source, seed in seeds.items() if seed != dict(base)[source]) for _, _, seeds in runs
    )
    alone = {(source,): 5 for source in Toy.sources}
    assert moves == {**alone, Toy.sources: 5, (): 2 + 3 * 5}
    trials = [point["rate"] for phase, point, _ in runs if phase == "validate"]
    assert len(set(trials)) == 12


def test_studies_of_equal_seed_give_paired_runs() -> None:
    class Other(Toy):
        name = "toy-2"

    first, second, third = Toy(), Other(), Toy()
    for study in (
        Study("a", first, [VarianceBySource(3)]),
        Study("b", second, [VarianceBySource(3)]),
        Study("c", third, [VarianceBySource(3)], seed=1),
    ):
        study.run()
    assert [seeds for _, _, seeds in first.asked] == [seeds for _, _, seeds in second.asked]
    seen = {seed for _, _, seeds in first.asked for seed in seeds.values()}
    assert not seen & {seed for _, _, seeds in third.asked for seed in seeds.values()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: IdealEstimator(0, RandomSearch(1)),
        lambda: FixedHyperparameterEstimator(0, RandomSearch(1)),
        lambda: FixedHyperparameterEstimator(2, RandomSearch(1), repetitions=0),
        lambda: VarianceBySource(1),
        lambda: VarianceBySource(5, noise=1),
        lambda: Study("", Toy(), [VarianceBySource(2)]),
        lambda: Study("x", Toy(), []),
        lambda: Study("x", Toy(), [VarianceBySource(2), VarianceBySource(3)]),
        lambda: Study("x", Toy(), [VarianceBySource(2)], seed=-1),
        lambda: Study("x", Toy(), [VarianceBySource(2, sources=("dropout",))]),
        lambda: Study("x", Toy(), [FixedHyperparameterEstimator(2, RandomSearch(1), "dropout")]),
        lambda: plan_cost(VarianceBySource(2), Toy(), 0.0),
        lambda: plan_cost(VarianceBySource(2), Toy(), 1.0, workers=0),
    ],
)
def test_counts_and_names_that_make_no_sense_are_refused_before_any_fit(make: Any) -> None:
    with pytest.raises(ArgumentError):
        make()


def test_what_is_not_an_experiment_is_told_what_it_lacks() -> None:
    class Bare:
        name, sources = "bare", ("data_split",)

        def run(self, hyperparameters: Any, streams: Any) -> float:
            return float("nan")

    not_one: Any = object()
    with pytest.raises(ArgumentError, match="experiment") as caught:
        Study("x", not_one, [VarianceBySource(2)])
    assert "name, sources, run" in str(caught.value)
    with pytest.raises(ArgumentError) as caught:
        Study("x", Bare(), [IdealEstimator(2, RandomSearch(2))])
    assert "space, validate" in str(caught.value)
    with pytest.raises(MeasurementError, match="score is nan"):
        time_fit(Bare())
    searching = Bare()
    searching.sources = ("hyperparameter_search",)
    with pytest.raises(ArgumentError, match=r"experiment\.sources"):
        Study("x", searching, [VarianceBySource(2)])


def test_the_toy_is_what_the_other_tests_take_it_for() -> None:
    assert toy_experiment.study.fits == 6 * 4 + 2 + 3 * 5 + 6 * 5 + 2 * 3 * 10
