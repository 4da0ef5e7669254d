"""The verdict: its error rate and power on simulated hosts, and its behaviour at the edges."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from simulated_host import NOISES, SimulatedHost

from taut.errors import ArgumentError, MeasurementError
from taut.stats import Arm, Clock, PairedResult, compare
from taut.stats._sequential import plan_looks
from taut.stats._signed_rank import signed_rank_interval, smallest_sample


def simulate(noise: str, candidate: float, seed: int, baseline: float = 0.05, **options: Any) -> PairedResult:
    host = SimulatedHost(NOISES[noise](np.random.default_rng(seed)))
    arms = host.arm(baseline, "baseline"), host.arm(candidate, "candidate")
    return compare(*arms, clock=host.clock, seed=seed, **options)


@pytest.mark.parametrize("noise", NOISES)
def test_identical_arms_are_called_different_no_more_often_than_alpha(noise: str) -> None:
    # Without a margin the test is at its most sensitive; 4 looks at 10 % must together err in at most 10 %.
    results = [simulate(noise, 0.05, seed, alpha=0.1, min_effect=0, max_pairs=60) for seed in range(250)]
    wrong = sum(result.verdict != "no evidence" for result in results)
    assert wrong <= 37  # P(X > 37) < 0.01 for X ~ Binomial(250, 0.1)
    assert sum(result.low <= 1 <= result.high for result in results) == 250 - wrong


def test_looking_often_at_the_full_level_would_break_that_promise() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(250):
        values = rng.normal(0, 1, 60)
        looks = (signed_rank_interval(values[:n], 0.1) for n in (12, 18, 27, 40, 60))
        wrong += any(low > 0 or high < 0 for low, high in looks)
    assert wrong > 37


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("factor", "verdict"), [(1.05, "slower"), (1 / 1.05, "faster")])
def test_five_percent_is_seen_within_the_default_budget(noise: str, factor: float, verdict: str) -> None:
    verdicts = [simulate(noise, 0.01 * factor, seed, baseline=0.01).verdict for seed in range(15)]
    assert verdicts.count(verdict) >= 14


@pytest.mark.parametrize("noise", NOISES)
def test_interval_holds_the_true_ratio_although_it_stops_early(noise: str) -> None:
    results = [simulate(noise, 0.05 / 1.03, seed, alpha=0.1, budget=10) for seed in range(100)]
    assert sum(result.low <= 1.03 <= result.high for result in results) >= 82  # P(X < 82) < 0.01 at 90 %


def test_a_large_effect_is_decided_at_the_first_look() -> None:
    result = simulate("independent", 0.025, 1)
    assert (result.verdict, result.stopped, result.pairs) == ("faster", "decided", 12)
    assert result.low > 1.7 and result.high < 2.3
    assert result.elapsed < 2


def test_equal_arms_stop_early_with_no_evidence() -> None:
    host = SimulatedHost(iter(lambda: 1.0, None))
    result = compare(host.arm(0.05), host.arm(0.05), clock=host.clock)
    assert (result.verdict, result.stopped, result.ratio) == ("no evidence", "equivalent", 1.0)
    assert result.elapsed < 3


def test_an_effect_inside_the_margin_is_no_evidence() -> None:
    result = simulate("independent", 0.05 / 1.02, 3, min_effect=0.1)
    assert (result.verdict, result.stopped) == ("no evidence", "equivalent")


def test_a_result_at_the_edge_of_the_margin_spends_the_budget() -> None:
    result = simulate("independent", 0.05 / 1.01, 3)
    assert (result.verdict, result.stopped) == ("no evidence", "budget")
    assert 19 < result.elapsed <= 20.5


def test_calls_that_leave_room_for_few_pairs_give_an_honest_no_evidence() -> None:
    result = simulate("independent", 2.5, 0, baseline=5.0)
    assert (result.verdict, result.stopped, result.pairs) == ("no evidence", "budget", 1)
    assert not result.has_interval
    assert (result.low, result.high) == (0, math.inf)
    assert "sample too small" in result.summary()


@pytest.mark.parametrize("times", [(5.0, 2.5), (2.0, 1.9)])
def test_the_budget_that_a_small_sample_asks_for_is_enough(times: tuple[float, float]) -> None:
    small = simulate("independent", times[1], 0, baseline=times[0], budget=10)
    advised = int(re.search(r"raise the budget to (\d+) s", small.summary())[1])  # pyright: ignore[reportOptionalSubscript]
    assert simulate("independent", times[1], 0, baseline=times[0], budget=advised).has_interval
    few = simulate("independent", 0.05, 0, max_pairs=3)
    assert "raise max_pairs to 8" in few.summary()
    assert simulate("independent", 0.05, 0, max_pairs=8).has_interval


def test_a_first_call_that_compiles_does_not_use_up_the_budget() -> None:
    state = {"now": 0.0, "compiled": False}

    def compiled() -> None:
        state["now"] += 0.05 if state["compiled"] else 60
        state["compiled"] = True

    def eager() -> None:
        state["now"] += 0.1

    clock = Clock("counted", lambda: state["now"], lambda: state["now"])
    result = compare(eager, compiled, clock=clock, budget=5)
    assert (result.verdict, result.stopped) == ("faster", "decided")


def test_a_sample_of_the_smallest_size_is_enough_for_slow_calls() -> None:
    result = simulate("independent", 0.5, 0, baseline=1.0)
    assert (result.verdict, result.stopped) == ("faster", "decided")
    assert smallest_sample(0.01) <= result.pairs <= 12


def test_first_look_waits_until_a_passing_disturbance_is_over() -> None:
    assert simulate("independent", 0.0005, 0, baseline=0.001).elapsed > 0.3


def test_max_pairs_ends_the_comparison() -> None:
    result = simulate("independent", 0.05, 0, max_pairs=5)
    assert (result.pairs, result.stopped, result.verdict) == (5, "max_pairs", "no evidence")


def test_order_within_pairs_is_random_and_given_by_the_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        host = SimulatedHost(NOISES["independent"](np.random.default_rng(0)))
        compare(host.arm(0.05, "a"), host.arm(0.05, "b"), clock=host.clock, seed=seed, max_pairs=40, min_effect=0)
        orders.append(host.blocks[-80:])
    assert orders[0] == orders[1] != orders[2]
    pairs = [tuple(orders[0][index : index + 2]) for index in range(0, 80, 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}


@dataclass
class Counted:
    """A callable that takes `seconds` of a counted clock and notes how it was called."""

    clock: Clock
    now: list[float]
    seconds: float
    calls: list[str]

    def __call__(self) -> None:
        self.calls.append("run")
        self.now[0] += self.seconds

    def prepare(self) -> None:
        self.calls.append("prepare")
        self.now[0] += 7


def counted(*seconds: float) -> list[Counted]:
    now = [0.0]
    clock = Clock("counted", lambda: now[0], lambda: now[0])
    return [Counted(clock, now, each, []) for each in seconds]


@pytest.mark.parametrize(("times", "equal"), [((2**-10, 2**-9), True), ((2**-10, 2**-4), False)])
def test_arms_of_like_speed_run_equally_many_calls_a_block(times: tuple[float, float], equal: bool) -> None:
    first, second = counted(*times)
    compare(first, second, clock=first.clock, min_block=2**-3, max_pairs=20, min_effect=0, alpha=1e-9)
    before = len(first.calls), len(second.calls)
    for arm in (first, second):
        arm.calls.clear()
    compare(first, second, clock=first.clock, min_block=2**-3, max_pairs=30, min_effect=0, alpha=1e-9)
    added = len(first.calls) - before[0], len(second.calls) - before[1]
    assert added[0] == 10 * (128 + 1)  # one untimed call refills the caches
    assert added[1] == 10 * ((128 if equal else 2) + 1)


def test_prepare_is_untimed_and_precedes_each_block_and_its_warm_up_call() -> None:
    first, second = counted(1, 1)
    result = compare(first, Arm(second, "prepared", second.prepare), clock=first.clock, budget=1000, max_pairs=3)
    assert (result.baseline_seconds, result.candidate_seconds) == (1, 1)
    assert second.calls[-9:] == ["prepare", "run", "run"] * 3
    assert first.calls[-6:] == ["run"] * 6


def test_an_arm_that_raises_is_named() -> None:
    def broken() -> None:
        raise ValueError("no such weight")

    with pytest.raises(MeasurementError, match="candidate raised ValueError: no such weight") as caught:
        compare(lambda: None, broken)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_clock_that_stands_still_is_an_error_not_a_ratio() -> None:
    host = SimulatedHost(iter(lambda: 1.0, None))
    clock = Clock("simulated", read=lambda: 0.0, wall=lambda: host.now)
    idle = Arm(lambda: host.arm(0.01).time_block(1, host.clock), "idle")
    with pytest.raises(MeasurementError, match="idle: the clock simulated did not advance"):
        compare(idle, idle, clock=clock)


def test_keyboard_interrupt_passes_through() -> None:
    calls = iter(range(20))

    def run() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(run, run, min_block=0)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0},
        {"alpha": 1},
        {"min_effect": -1},
        {"budget": 0},
        {"max_pairs": 0},
        {"max_pairs": 10**6},
        {"clock": "sundial"},
    ],
)
def test_arguments_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        compare(lambda: None, lambda: None, **options)


def test_something_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ArgumentError, match="candidate"):
        compare(lambda: None, 3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("options", [{}, {"max_pairs": 2}])
def test_result_survives_json(options: dict[str, Any]) -> None:
    result = simulate("bursts", 0.05, 0, budget=3, **options)
    assert PairedResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result


def test_a_damaged_record_is_refused() -> None:
    record = simulate("bursts", 0.05, 0, max_pairs=2).to_dict()
    with pytest.raises(ArgumentError, match="verdict"):
        PairedResult.from_dict(record | {"verdict": "great"})
    with pytest.raises(ArgumentError, match="paired result"):
        PairedResult.from_dict(record | {"ratio": "much"})
    del record["low"]
    with pytest.raises(ArgumentError, match="low"):
        PairedResult.from_dict(record)


@pytest.mark.parametrize("clock", ["wall", "process_cpu", "thread_cpu"])
def test_real_clocks_tell_twice_the_work(clock: Any) -> None:
    seen: list[int] = []
    result = compare(
        lambda: sum(range(20_000)),
        lambda: sum(range(10_000)),
        clock=clock,
        budget=2,
        progress=lambda pairs, elapsed: seen.append(pairs),
    )
    assert result.verdict == "faster"
    assert result.clock == clock
    assert seen == list(range(1, result.pairs + 1))


@pytest.mark.parametrize("capacity", [0, 5, 11, 14, 15, 100, 2000])
@pytest.mark.parametrize("alpha", [0.2, 0.01, 1e-6])
def test_looks_share_alpha_and_each_can_decide(alpha: float, capacity: int) -> None:
    plan = plan_looks(alpha, capacity)
    assert plan.share * (len(plan.looks) + 1) <= alpha * (1 + 1e-12)
    assert all(smallest_sample(plan.share) <= look <= capacity for look in plan.looks)
    assert list(plan.looks) == sorted(set(plan.looks))
