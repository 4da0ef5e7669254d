"""Power, sample sizes, correlations, several systems and data sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, mannwhitneyu

from taut.errors import ArgumentError, DataError, MeasurementError
from taut.stats import (
    across_datasets,
    compare_systems,
    correlation_from_deviations,
    correlation_from_means,
    correlation_from_repetitions,
    outperformance,
    power,
    runs_needed,
    sample_size,
    significance,
    verdict_probabilities,
)

SHIFT = 0.9538726  # sqrt(2) Phi^-1(0.75)


@pytest.mark.parametrize(("test", "size"), [("sign", 44), ("mann-whitney", 29), ("t", 25)])
def test_sample_sizes_of_the_paper_and_of_the_tests(test, size: int) -> None:
    assert sample_size(test, 0.75, 0.05, 0.05) == size
    assert sample_size(test, 0.9, 0.05, 0.05) < size < sample_size(test, 0.7, 0.05, 0.05)


def test_the_sign_test_keeps_its_power_from_its_size_on_and_not_before() -> None:
    def by_enumeration(n: int) -> float:
        critical = next(wins for wins in range(n + 2) if binom.sf(wins - 1, n, 0.5) <= 0.05)
        return float(binom.sf(critical - 1, n, 0.75))

    powers = {n: by_enumeration(n) for n in range(2, 200)}
    for n, expected in powers.items():
        assert power("sign", n) == pytest.approx(expected)
    assert max(n for n, value in powers.items() if value < 0.95) == sample_size("sign") - 1


@pytest.mark.parametrize(("test", "simulated"), [("mann-whitney", 0.971), ("t", 0.972), ("sign", 0.844)])
def test_power_of_29_runs(test, simulated: float) -> None:
    assert power(test, 29) == pytest.approx(simulated, abs=0.012)


def test_power_of_the_rank_test_agrees_with_simulation() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(SHIFT, 1, (1500, 15)), generator.normal(0, 1, (1500, 15))
    found = mannwhitneyu(a, b, alternative="greater", axis=1).pvalue <= 0.05
    assert power("mann-whitney", 15) == pytest.approx(np.mean(found), abs=0.03)


def test_runs_needed_for_pairs_is_exact() -> None:
    needed = runs_needed(0.75, paired=True)
    assert needed == runs_needed(0.25, paired=True)
    assert needed is not None

    def found(n: int) -> float:
        chances = verdict_probabilities(n, 0.75, gamma=0.999)
        return chances["A better"] + chances["significant but not meaningful"]

    assert found(needed - 1) < 0.95
    assert all(found(n) >= 0.95 for n in range(needed, needed + 12))


@pytest.mark.parametrize("correlation", [0.0, 0.02, 0.142, 0.348, 0.535])
@pytest.mark.parametrize("n", [10, 29, 50])
def test_the_error_of_pairs_is_alpha_at_most_whatever_the_search_shares(n: int, correlation: float) -> None:
    chances = verdict_probabilities(n, 0.5, correlation=correlation)
    assert 1 - chances["not significant"] - chances["cannot decide"] <= 0.05


def test_runs_needed_unpaired() -> None:
    assert [runs_needed(share, paired=False) for share in (0.6, 0.75, 0.9)] == [214, 32, 11]


@pytest.mark.parametrize("correlation", [0.0, 0.02])
def test_runs_needed_for_unpaired_runs_agrees_with_simulation(correlation: float) -> None:
    needed = runs_needed(0.8, paired=False, correlation=correlation)
    assert needed is not None
    generator = np.random.default_rng(1)
    shift = np.sqrt(2) * 0.8416212
    found = 0
    for _ in range(600):
        a, b = (
            mean + np.sqrt(correlation) * generator.normal() + np.sqrt(1 - correlation) * generator.normal(size=needed)
            for mean in (shift, 0.0)
        )
        found += outperformance(a, b, paired=False, correlation=correlation).interval.low > 0.5
    assert found / 600 == pytest.approx(0.95, abs=0.035)


def test_no_number_of_runs_replaces_searches() -> None:
    assert runs_needed(0.75, paired=True, correlation=0.3) is None
    assert runs_needed(0.75, paired=False, correlation=0.3) is None
    few, more = (runs_needed(0.75, paired=True, correlation=rho) for rho in (0.0, 0.01))
    assert few is not None
    assert more is not None
    assert few < more
    assert runs_needed(0.5001, paired=True) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: power("sign", 1),
        lambda: sample_size("sign", 0.5),
        lambda: sample_size("sign", 0.75, 0.05, 1.0),
        lambda: sample_size("sign", 0.5001),
        lambda: sample_size("z", 0.75),  # type: ignore[arg-type]
        lambda: runs_needed(0.5, paired=True),
        lambda: runs_needed(0.75, paired=True, correlation=-0.1),
        lambda: verdict_probabilities(0, 0.5),
        lambda: correlation_from_means(0.3, 0.2, 10),
        lambda: correlation_from_means(0.1, 0.2, 1),
        lambda: correlation_from_deviations(0.1, 0.0),
        lambda: correlation_from_deviations(float("nan"), 0.1),
        lambda: compare_systems({"A": [1, 2]}, paired=True),
        lambda: across_datasets({}, paired=True),
        lambda: significance("anova", [1, 2], [3, 4]),  # type: ignore[arg-type]
    ],
)
def test_numbers_out_of_range_are_refused(call) -> None:
    with pytest.raises(ArgumentError) as raised:
        call()
    assert raised.value.expected


def test_the_correlation_solves_the_floor_of_the_paper() -> None:
    deviation, k, rho = 0.3, 100, 0.37
    variance_of_mean = deviation**2 / k + (k - 1) / k * rho * deviation**2
    assert correlation_from_means(variance_of_mean**0.5, deviation, k) == pytest.approx(rho)
    assert correlation_from_means(0.0, deviation, k) == 0
    assert correlation_from_deviations(3.0, 4.0) == pytest.approx(9 / 25)


def test_the_interval_of_the_correlation_holds_it() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        scores = 0.6 * generator.normal(size=(20, 1)) + 0.8 * generator.normal(size=(20, 10))
        found = correlation_from_repetitions(scores)
        assert found.low <= found.estimate <= found.high
        held += found.low <= 0.36 <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 1.0]] * 3, [[1.0, np.nan]] * 2])
def test_repetitions_that_show_no_correlation_are_refused(scores: list) -> None:
    with pytest.raises(DataError):
        correlation_from_repetitions(scores)


def test_holm_holds_the_error_over_all_pairs_of_systems() -> None:
    generator = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        systems = {name: generator.normal(size=20) for name in "ABCD"}
        verdicts = {found.verdict for found in compare_systems(systems, paired=False).values()}
        wrong += bool(verdicts & {"A better", "B better"})
    assert wrong / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_holm_steps_down() -> None:
    generator = np.random.default_rng(6)
    systems = {name: generator.normal(shift, 1, 29) for name, shift in (("A", 0), ("B", 0.1), ("C", 4))}
    found = compare_systems(systems, paired=True, gamma=0.6)
    assert list(found) == [("A", "B"), ("A", "C"), ("B", "C")]
    assert sorted(one.alpha for one in found.values()) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])
    assert [one.verdict for one in found.values()] == ["not significant", "B better", "B better"]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_the_error_over_data_sets_holds(paired: bool, correlation: float) -> None:
    generator = np.random.default_rng(7)
    wrong = 0
    for _ in range(250):
        scores = {}
        for scale in (0.01, 1.0, 50.0):
            a, b = (
                scale
                * (np.sqrt(correlation) * generator.normal() + np.sqrt(1 - correlation) * generator.normal(size=9))
                for _ in range(2)
            )
            scores[str(scale)] = (a, b)
        combined = across_datasets(scores, paired=paired, correlation=correlation).combined
        wrong += not combined.low <= 0.5 <= combined.high
    assert wrong / 250 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)


def test_data_sets_together_show_what_few_show_alone() -> None:
    generator = np.random.default_rng(8)
    scores = {str(index): (generator.normal(1.2, 1, 8), generator.normal(0, 1, 8)) for index in range(6)}
    found = across_datasets(scores, paired=True)
    assert found.verdict == "A better"
    assert [one.verdict for one in found.datasets.values()].count("A better") <= 1
    assert found.combined.estimate == pytest.approx(np.mean([one.estimate for one in found.datasets.values()]))
    assert across_datasets({"constant": ([1.0] * 9, [0.0] * 9)}, paired=True).verdict == "cannot decide"


@pytest.mark.parametrize("test", ["sign", "wilcoxon", "paired-t", "mann-whitney", "brunner-munzel", "t"])
def test_the_usual_tests(test) -> None:
    generator = np.random.default_rng(9)
    a, b = generator.normal(2, 1, 29), generator.normal(0, 1, 29)
    assert significance(test, a, b) < 0.001 < significance(test, b, generator.permutation(b) + 1e-9)


@pytest.mark.parametrize("test", ["sign", "paired-t", "t", "brunner-munzel"])
def test_a_test_that_is_not_defined_says_so(test) -> None:
    with pytest.raises(MeasurementError, match=test):
        significance(test, [1.0] * 5, [1.0] * 5)
    if test in ("sign", "paired-t"):
        with pytest.raises(DataError):
            significance(test, [1.0, 2.0], [1.0])
