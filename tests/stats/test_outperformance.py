"""P(A>B) from scores: pairs, all pairs, ties, bad input."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from taut.errors import ArgumentError, DataError
from taut.stats import compare_systems, correlation_from_repetitions, outperformance, pair_by_seed

GRID = st.integers(-4, 4).map(float)


def normal(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, n)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(GRID, GRID), min_size=1, max_size=40), st.booleans())
def test_both_systems_are_treated_alike(pairs: list[tuple[float, float]], paired: bool) -> None:
    a, b = np.array(pairs).T
    one, other = outperformance(a, b, paired=paired), outperformance(b, a, paired=paired)
    assert one.wins + one.losses + one.ties == pytest.approx(1)
    assert (one.wins, one.ties) == pytest.approx((other.losses, other.ties))
    assert one.estimate == pytest.approx(1 - other.estimate)
    assert (one.interval.low, one.interval.high) == pytest.approx((1 - other.interval.high, 1 - other.interval.low))
    assert one.p_value == pytest.approx(other.p_value)
    assert 0 <= one.interval.low <= one.estimate <= one.interval.high <= 1
    assert outperformance(-a, -b, paired=paired, lower_is_better=True) == one


@settings(max_examples=40, deadline=None)
@given(st.lists(GRID, min_size=2, max_size=12), st.lists(GRID, min_size=2, max_size=12), st.randoms())
def test_unpaired_runs_have_no_order_and_count_all_pairs(a: list[float], b: list[float], random) -> None:
    found = outperformance(a, b, paired=False)
    pairs = [(x > y, x == y) for x in a for y in b]
    assert found.wins == pytest.approx(np.mean([win for win, _ in pairs]))
    assert found.ties == pytest.approx(np.mean([tie for _, tie in pairs]))
    random.shuffle(b)
    shuffled = outperformance(a, b, paired=False)
    assert (shuffled.verdict, shuffled.interval.low) == (found.verdict, pytest.approx(found.interval.low))


def test_pairs_cancel_what_both_runs_share() -> None:
    split = normal(0, 29, 0) * 10
    a, b = split + 0.5 + normal(1, 29) * 0.3, split + normal(2, 29) * 0.3
    assert outperformance(a, b, paired=True).verdict == "A better"
    assert outperformance(a, b, paired=False).verdict == "not significant"


def test_significant_but_not_meaningful() -> None:
    a = np.array([1.0] * 600 + [0.0] * 400) + normal(0, 1000) * 1e-3
    b = 1 - np.array([1.0] * 600 + [0.0] * 400) + normal(1, 1000) * 1e-3
    found = outperformance(a, b, paired=True)
    assert found.verdict == "significant but not meaningful"
    assert "gamma = 0.75" in found.reason
    assert outperformance(a, b, paired=True, gamma=0.55).verdict == "A better"


def test_29_of_29_has_a_width() -> None:
    found = outperformance(normal(0, 29, 100), normal(1, 29), paired=True)
    assert found.estimate == 1
    assert (round(found.interval.low, 3), found.interval.high) == (0.881, 1)
    apart = outperformance(normal(0, 29, 100), normal(1, 29), paired=False)
    assert apart.verdict == "A better"
    assert 0.9 < apart.interval.low < apart.interval.high == 1


def test_no_overlap_says_no_less_than_one_pair_the_other_way_round() -> None:
    apart = outperformance([5, 6, 7, 8, 9], [0, 1, 2, 3, 4], paired=False)
    nearly = outperformance([3.5, 6, 7, 8, 9], [0, 1, 2, 3, 4], paired=False)
    assert nearly.wins == 24 / 25
    assert apart.interval.low >= nearly.interval.low
    assert apart.p_value <= nearly.p_value


@pytest.mark.parametrize(("n", "m"), [(2, 9), (3, 5), (5, 5), (4, 6), (2, 3)])
def test_equal_systems_differ_with_probability_alpha_at_most_at_every_alpha(n: int, m: int) -> None:
    ranks = range(n + m)
    p_values = np.array(
        [
            outperformance(one, [rank for rank in ranks if rank not in one], paired=False).p_value
            for one in itertools.combinations(ranks, n)
        ]
    )
    for alpha in np.unique(p_values):
        assert np.mean(p_values <= alpha) <= alpha * (1 + 1e-9)


@pytest.mark.parametrize(("n", "m"), [(2, 9), (5, 5), (7, 20), (29, 29), (60, 100), (101, 103)])
def test_the_rank_test_is_that_of_scipy(n: int, m: int) -> None:
    from taut.stats.decisions._rank_test import rank_test

    for seed in range(4):
        a, b = normal(seed, n, 0.3 * seed), normal(seed + 9, m)
        wins = float(np.sum(a[:, None] > b))
        method = "exact" if n < 101 else "asymptotic"  # above 10,000 pairs
        theirs = mannwhitneyu(a, b, method=method).pvalue
        assert rank_test(min(wins, n * m - wins), (n, m)) == pytest.approx(theirs, rel=1e-9)


def test_samples_apart_are_no_surer_than_the_exact_test() -> None:
    found = outperformance(np.arange(12) + 100.0, np.arange(12), paired=False)
    assert found.p_value >= 2 / math.comb(24, 12)
    assert outperformance(np.arange(12) + 100.0, np.arange(12), paired=False, alpha=1e-8).verdict == "not significant"


@pytest.mark.parametrize("probability", [0.9, 0.97])
def test_the_unpaired_interval_covers_a_clear_difference(probability: float) -> None:
    generator = np.random.default_rng(4)
    for n in (10, 20):
        missed = 0
        for _ in range(400):
            a, b = generator.normal(np.sqrt(2) * norm.ppf(probability), 1, n), generator.normal(size=n)
            interval = outperformance(a, b, paired=False).interval
            missed += not interval.low <= probability <= interval.high
        assert missed / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_holm_holds_the_error_of_all_verdicts_together() -> None:
    generator = np.random.default_rng(8)
    wrong = 0
    for _ in range(200):
        found = compare_systems({str(name): generator.normal(size=6) for name in range(6)}, paired=False)
        wrong += any(one.verdict not in ("not significant", "cannot decide") for one in found.values())
    assert wrong / 200 <= 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("shift", [-0.9, 0.4, 0.9])
def test_the_p_value_is_the_level_at_which_one_half_drops_out(correlation: float, paired: bool, shift: float) -> None:
    a, b = normal(3, 40, shift), normal(4, 40)
    p_value = outperformance(a, b, paired=paired, correlation=correlation).p_value
    above, below = (
        outperformance(a, b, paired=paired, correlation=correlation, alpha=p_value * factor).interval
        for factor in (1.0001, 0.9999)
    )
    assert not above.low < 0.5 < above.high
    assert below.low < 0.5 < below.high


def significant(
    n: int, m: int, correlation: float, draws: int, *, shift: float = 0.0, deviation_of_a: float = 1.0
) -> float:
    """How often 1/2 is excluded for normal scores; A's are higher by sqrt(2) `shift` of a search's deviations."""
    generator = np.random.default_rng([n, m, round(1000 * correlation)])
    inner, outer = np.sqrt(1 - correlation), np.sqrt(correlation)
    a = inner * (deviation_of_a * generator.normal(size=(draws, n)) + np.sqrt(2) * shift)
    a += outer * generator.normal(size=(draws, 1))
    b = inner * generator.normal(size=(draws, m)) + outer * generator.normal(size=(draws, 1))
    # Draws near 1/2 are not significant by any rule; 1.4 deviations of the share leave a sixth of equal systems.
    order = np.argsort(np.concatenate([a, b], axis=1), axis=1)
    share = (np.sum(np.where(order < n, np.arange(n + m), 0), axis=1) - n * (n - 1) / 2) / (n * m)
    deviation = np.sqrt(2 * np.pi * (n + m + 1) / (12 * n * m) + correlation / (1 - correlation))
    far = np.abs(norm.ppf(np.clip(share, 1e-9, 1 - 1e-9))) > 1.4 * deviation
    found = 0
    for x, y in zip(a[far], b[far], strict=True):
        interval = outperformance(x, y, paired=False, correlation=correlation).interval
        found += not interval.low <= 0.5 <= interval.high
    return found / draws


@pytest.mark.parametrize(
    ("n", "m", "correlation"),
    [
        *((5, 5, 0.0), (5, 50, 0.0), (8, 50, 0.0), (10, 10, 0.0), (50, 50, 0.0)),
        *((5, 20, 0.1), (10, 10, 0.3), (20, 20, 0.142), (29, 29, 0.535), (50, 50, 0.046)),
    ],
)
def test_unpaired_error_holds_with_and_without_a_shared_search(n: int, m: int, correlation: float) -> None:
    draws = 2500 if correlation else 6000
    error = significant(n, m, correlation, draws)
    assert 0.015 < error <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(("n", "m", "deviation"), [(10, 10, 3), (8, 50, 3), (10, 30, 3), (30, 10, 3)])
def test_unpaired_error_holds_where_one_system_varies_more(n: int, m: int, deviation: float) -> None:
    draws = 4000
    assert significant(n, m, 0.0, draws, deviation_of_a=deviation) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(("n", "correlation", "least"), [(10, 0.0, 0.45), (29, 0.0, 0.92), (50, 0.1, 0.42)])
def test_unpaired_runs_find_three_quarters(n: int, correlation: float, least: float) -> None:
    assert significant(n, n, correlation, 1000, shift=0.6745) >= least


@pytest.mark.parametrize(("n", "m", "shift", "digits"), [(29, 29, 1.2, 9), (20, 60, -0.4, 1), (100, 100, 0.5, 1)])
def test_the_unpaired_percentile_interval_is_where_resampling_arrives(n, m, shift, digits) -> None:
    a, b = np.round(normal(n, n, shift), digits), np.round(normal(m + 1, m), digits)
    outcomes = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    generator = np.random.default_rng(0)
    draws_a, draws_b = (generator.multinomial(size, [1 / size] * size, 10_000) / size for size in (n, m))
    ends = np.quantile(np.sum((draws_a @ outcomes) * draws_b, axis=1), [0.025, 0.975])
    found = outperformance(a, b, paired=False, method="percentile")
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(ends), abs=0.005)


@pytest.mark.peer
def test_the_variance_is_that_of_statsmodels() -> None:
    nonparametric = pytest.importorskip("statsmodels.stats.nonparametric")
    from taut.stats.decisions._all_pairs import superiority

    for seed, (n, m) in enumerate([(5, 9), (29, 29), (100, 3)]):
        a, b = np.round(normal(seed, n, 0.5), 1), np.round(normal(seed + 9, m), 1)
        ours, theirs = superiority(a, b), nonparametric.rank_compare_2indep(a, b)
        assert ours.estimate == pytest.approx(theirs.prob1)
        assert ours.variance == pytest.approx(theirs.var_prob)
        assert ours.freedom == pytest.approx(theirs.df)


def test_the_variance_is_that_of_scipys_all_pairs() -> None:
    from scipy.stats import brunnermunzel, t

    from taut.stats.decisions._all_pairs import superiority

    for seed, (n, m) in enumerate([(5, 9), (29, 29), (100, 3)]):
        a, b = np.round(normal(seed, n, 0.5), 1), np.round(normal(seed + 9, m), 1)
        found = superiority(a, b)
        statistic = (found.estimate - 0.5) / np.sqrt(found.variance)
        theirs = brunnermunzel(b, a)
        assert statistic == pytest.approx(theirs.statistic)
        assert 2 * t.sf(abs(statistic), found.freedom) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ([0.9], [0.8], "one run"),
        ([0.9] * 20, [0.8] * 20, "nothing varied"),
        ([0.9] * 20, [0.9] * 20, "nothing varied"),
    ],
)
def test_what_carries_no_decision_is_said(a: list[float], b: list[float], why: str, paired: bool) -> None:
    found = outperformance(a, b, paired=paired)
    assert found.verdict == "cannot decide"
    assert why in found.reason
    assert (found.interval.low, found.interval.high, found.p_value) == (0, 1, 1)
    assert found.wins + found.losses + found.ties == 1


def test_few_pairs_and_few_untied_pairs_are_said() -> None:
    found = outperformance([1, 2, 3, 4, 5], [0, 1, 2, 3, 4], paired=True)
    assert found.verdict == "cannot decide"
    assert "5 pairs" in found.reason
    tied = outperformance([1.0, 2.0] + [3.0] * 20, [0.0, 1.0] + [3.0] * 20, paired=True)
    assert "only 2 of 22 pairs differ" in tied.reason
    equal = outperformance([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], paired=True)
    assert equal.verdict == "cannot decide"
    half = outperformance([1.0, 2.0, 3.0], [1.0, 2.0, 0.0], paired=True, correlation=0.3)
    assert "only 1 of 3 pairs differ; not even winning all of them with a correlation of 0.3" in half.reason
    shared = outperformance(normal(0, 29, 9), normal(1, 29), paired=True, correlation=0.6)
    assert "correlation of 0.6" in shared.reason


def test_one_constant_system_can_be_compared() -> None:
    assert outperformance([0.5] * 29, normal(0, 29, -3), paired=False).verdict == "A better"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0.9, float("nan")], [0.8, 0.7], "A: 1 of 2 scores are not finite; the first is nan at position 1"),
        ([0.9, 0.8], [0.8, float("inf")], "B: 1 of 2 scores are not finite"),
        ([0.9, 0.8], [0.8], "A has 2 runs and B 1"),
        ([], [0.8], "A: got scores of shape"),
        ([[0.9]], [[0.8]], "A: got scores of shape"),
        (["high"], [0.8], "A: the scores are not numbers"),
    ],
)
def test_bad_scores_are_named(a: list, b: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        outperformance(a, b, paired=True)


def test_runs_that_do_not_differ_show_no_correlation() -> None:
    for table in (
        [[0.1] * 7, [0.7] * 7],
        [[1, 2], [3]],
    ):  # the mean of seven .1 is not .1
        with pytest.raises(DataError, match="scores"):
            correlation_from_repetitions(table)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ArgumentError, match="gamma"):
        outperformance([1, 2], [3, 4], paired=True, gamma=1.5)
    with pytest.raises(ArgumentError, match="method"):
        outperformance([1, 2], [3, 4], paired=False, method="wilson")


def test_the_result_is_plain_json() -> None:
    found = outperformance(normal(0, 29, 1), normal(1, 29), paired=True)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["verdict"] == found.verdict
    assert data["interval"]["low"] == found.interval.low
    assert found.summary().startswith(found.verdict)


def test_runs_are_paired_by_seed_whatever_their_order() -> None:
    a, b, left_out = pair_by_seed([3, 1, 2, 9], [0.3, 0.1, 0.2, 0.9], [2, 3, 7], [20, 30, 70])
    assert (a.tolist(), b.tolist(), left_out) == ([0.3, 0.2], [30, 20], 3)


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "message"),
    [
        ([1, 1], [1, 2], "A: seed 1 occurs 2 times"),
        ([1, 2], [3, 4], "no seed in common"),
        ([1], [1, 2], "A: 1 seeds for 2 scores"),
    ],
)
def test_bad_seeds_are_named(seeds_a: list[int], seeds_b: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pair_by_seed(seeds_a, [0.1, 0.2], seeds_b, [0.1, 0.2])


def test_the_order_of_unpaired_runs_changes_no_bit() -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        a, b = generator.normal(0.5, 1, 21).round(1), generator.normal(0, 1, 17).round(1)
        found = outperformance(a, b, paired=False)
        again = outperformance(generator.permutation(a), generator.permutation(b), paired=False)
        assert again.to_dict() == found.to_dict()
