"""Controllers: exact decisions for scripted norms and learning rates."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.distributed import (
    Accordion,
    AccordionBatchSize,
    Controller,
    CostModelController,
    RandomSchedule,
    Replay,
    Static,
    WarmUp,
)
from taut.errors import ArgumentError, ArtefactError, MeasurementError


def replayed(
    controller: Controller, norms: Mapping[str, Sequence[float]], rates: Sequence[float], start: int = 0
) -> list[dict[str, int]]:
    """Decisions, where each epoch's gradients of each parameter sum up to a given norm, in three steps."""
    found = []
    for epoch in range(start, len(rates)):
        found.append(dict(controller.decide(epoch, rates[epoch])))
        for part in (0.5, -0.5, 1.0):
            for name, values in norms.items():
                controller.observe(name, part * values[epoch] * torch.tensor([0.6, -0.8]))
    return found


def by_name(decisions: list[dict[str, int]], name: str) -> list[int]:
    return [levels[name] for levels in decisions]


class TestAccordion:
    def test_every_epoch(self) -> None:
        norms = {
            "falling": [8.0, 3.0, 2.0, 1.0, 0.4, 0.3, 0.3],
            "rising": [1.0, 1.4, 2.2, 3.2, 4.0, 4.0, 9.0],
            "at the limit": [4.0, 2.0, 2.0, 3.0, 1.6, 1.6, 1.6],
        }
        found = replayed(Accordion(norms, switch_every=1), norms, [0.1] * 7)
        # The first compares with nothing. Level of epoch e: norm of e - 1 against that of e - 2.
        assert by_name(found, "falling") == [0, 0, 0, 1, 0, 0, 1]
        assert by_name(found, "rising") == [0, 0, 1, 0, 1, 1, 1]
        assert by_name(found, "at the limit") == [0, 0, 0, 1, 0, 1, 1]

    def test_compares_over_the_epochs_between_switches(self) -> None:
        """Each epoch changes the norm by 20 %, three of them by 49 %, so that only the distance decides."""
        norms = {"slow": [0.8**epoch for epoch in range(12)], "fast": [0.7**epoch for epoch in range(12)]}
        found = replayed(Accordion(norms, switch_every=3), norms, [0.1] * 12)
        assert by_name(found, "slow") == [0] * 4 + [1] * 8  # 1 - 0.8^3 = 0.488
        assert by_name(found, "fast") == [0] * 12  # 1 - 0.7^3 = 0.657

    def test_the_rate_decay_makes_all_critical_until_the_next_comparison(self) -> None:
        norms = {name: [1.0] * 14 for name in "ab"}
        rates = [0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.03, 0.03, 0.03, 0.03, 0.03, 0.003, 0.003, 0.003]
        found = replayed(Accordion(norms, switch_every=2), norms, rates)
        expected = [0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1]  # decays at 6 and at 11, the latter a comparison too
        assert by_name(found, "a") == by_name(found, "b") == expected

    def test_a_smooth_schedule_is_no_decay(self) -> None:
        norms = {"a": [1.0] * 10}
        rates = [0.1 * 0.95**epoch for epoch in range(10)]
        assert by_name(replayed(Accordion(norms, switch_every=1), norms, rates), "a") == [0, 0] + [1] * 8
        strict = Accordion(norms, switch_every=1, decay=1.0)
        assert by_name(replayed(strict, norms, rates), "a") == [0] * 10

    def test_a_sum_that_was_zero_is_critical(self) -> None:
        norms = {"a": [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]}
        found = replayed(Accordion(norms, switch_every=1), norms, [0.1] * 8)
        assert by_name(found, "a") == [0, 0, 0, 1, 0, 0, 0, 1]

    def test_what_is_not_finite_is_critical(self) -> None:
        norms = {"a": [1.0, math.nan, 1.0, 1.0, math.inf, 1.0, 1.0]}
        found = replayed(Accordion(norms, switch_every=1), norms, [0.1] * 7)
        assert by_name(found, "a") == [0, 0, 0, 0, 1, 0, 0]

    def test_norm_of_the_sum_and_not_the_sum_of_norms(self) -> None:
        """Gradients that alternate in sign add up to nothing, however large they are."""
        controller = Accordion(["a"], switch_every=1)
        found = []
        for epoch in range(5):
            found.append(controller.decide(epoch, 0.1)["a"])
            for step in range(10):
                size = 1000.0 * (epoch + 1)
                controller.observe("a", torch.full((3,), size if step % 2 else -size))
            controller.observe("a", torch.ones(3))
        assert found == [0, 0, 1, 1, 1]

    def test_sums_have_the_range_of_float32(self) -> None:
        controller, found = Accordion(["a"], switch_every=1), []
        for epoch in range(4):
            found.append(controller.decide(epoch, 0.1)["a"])
            for _ in range(3000):
                controller.observe("a", torch.full((2,), 60.0, dtype=torch.float16))  # 180,000: beyond float16
        assert found == [0, 0, 1, 1]

    def test_observing_does_not_touch_or_keep_the_gradient(self) -> None:
        controller, gradient = Accordion(["a"], switch_every=1), torch.ones(4)
        controller.observe("a", gradient)
        controller.observe("a", gradient)
        assert torch.equal(gradient, torch.ones(4))
        controller.observe("unknown", gradient)
        assert set(controller.state_dict()["sums"]) == {"a"}

    def test_any_levels(self) -> None:
        norms = {"a": [1.0] * 3}
        assert by_name(replayed(Accordion(norms, switch_every=1, low=1, high=3), norms, [0.1] * 3), "a") == [1, 1, 3]

    def test_mean_of_norms_over_ranks(self) -> None:
        """Alone, this rank would see no change; together with one whose norm triples, the mean doubles."""

        def average(norms: torch.Tensor) -> None:
            norms.add_(others.pop(0)).div_(2)

        others = [torch.tensor([value], dtype=torch.float64) for value in (0.0, 1.0, 3.0, 3.0)]
        norms = {"a": [1.0] * 4}
        found = replayed(Accordion(norms, switch_every=1, average=average), norms, [0.1] * 4)
        assert by_name(found, "a") == [0, 0, 0, 1]

    @given(
        norms=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.4, 2.0, 3.0]), min_size=12, max_size=12),
        decays=st.sets(st.integers(1, 11)),
        every=st.integers(1, 4),
        stop=st.integers(0, 11),
    )
    def test_resumed_in_any_epoch(self, norms: list[float], decays: set[int], every: int, stop: int) -> None:
        rates = [0.5 ** sum(decay <= epoch for decay in decays) for epoch in range(12)]
        whole = replayed(Accordion(["a"], switch_every=every), {"a": norms}, rates)
        first = Accordion(["a"], switch_every=every)
        before = replayed(first, {"a": norms[: stop + 1]}, rates[: stop + 1])
        written = io.BytesIO()
        torch.save(first.state_dict(), written)
        written.seek(0)
        second = Accordion(["a"], switch_every=every)
        second.load_state_dict(torch.load(written, weights_only=True))
        assert second.decide(stop, rates[stop]) == before[-1]  # asked again, nothing moves
        assert before + replayed(second, {"a": norms}, rates, start=stop + 1) == whole

    def test_state_of_another_model(self) -> None:
        with pytest.raises(ArtefactError, match="'conv'"):
            Accordion(["linear"]).load_state_dict(Accordion(["conv"]).state_dict())

    def test_state_of_another_controller(self) -> None:
        batch_size = AccordionBatchSize(["a"], 8, 64)
        for controller, other in ((Accordion(["a"]), batch_size), (batch_size, Static(["a"], 0))):
            with pytest.raises(ArtefactError, match="no state of such a controller"):
                controller.load_state_dict(other.state_dict())


class TestAccordionBatchSize:
    def test_goes_to_the_large_batch_once_and_for_all(self) -> None:
        controller = AccordionBatchSize(["a", "b"], 512, 4096, switch_every=2)
        found = []
        for epoch, norm in enumerate([9.0, 9.0, 4.0, 4.0, 3.0, 3.0, 30.0, 30.0, 3.0, 3.0]):
            found.append(controller.decide(epoch, 0.1))
            for name, part in (("a", 0.6), ("b", 0.8)):
                controller.observe(name, torch.full((1,), part * norm))
        assert [size for size, _ in found] == [512] * 5 + [4096] * 5  # 9 to 4 is critical, 4 to 3 is not
        assert found[0].learning_rate == 0.1
        assert found[-1].learning_rate == pytest.approx(0.8)

    def test_resumed(self) -> None:
        def decisions(resume_at: int) -> list[int]:
            controller, found = AccordionBatchSize(["a"], 8, 64, switch_every=1), []
            for epoch in range(5):
                found.append(controller.decide(epoch, 0.1).size)
                controller.observe("a", torch.ones(2) * (4 if epoch == 0 else 1))
                if epoch == resume_at:
                    state = copy.deepcopy(controller.state_dict())
                    controller = AccordionBatchSize(["a"], 8, 64, switch_every=1)
                    controller.load_state_dict(state)
            return found

        assert all(decisions(epoch) == [8, 8, 8, 64, 64] for epoch in range(-1, 5))

    def test_large_batch_below_the_small_one(self) -> None:
        with pytest.raises(ArgumentError, match="large"):
            AccordionBatchSize(["a"], 64, 8)


def test_static() -> None:
    assert [Static(["a", "b"], 2).decide(epoch, 0.1) for epoch in (0, 7)] == [{"a": 2, "b": 2}] * 2


def test_warm_up_rises_at_equal_distances() -> None:
    assert [WarmUp(["a"], 3).decide(epoch, 0.1)["a"] for epoch in range(6)] == [0, 0, 0, 1, 1, 1]
    levels = [WarmUp(["a"], 6, (3, 1, 0)).decide(epoch, 0.1)["a"] for epoch in range(8)]
    assert levels == [3, 3, 3, 1, 1, 1, 0, 0]
    assert WarmUp(["a"], 0).decide(0, 0.1) == {"a": 1}


RECORDED = [{"a": 0, "b": 0}] * 3 + [{"a": 1, "b": 0}] * 4 + [{"a": 1, "b": 1}] * 13


def test_replay() -> None:
    controller = Replay(RECORDED)
    assert [controller.decide(epoch, 0.1) for epoch in range(20)] == RECORDED
    assert controller.decide(99, 0.1) == RECORDED[-1]


def test_random_schedule_has_the_traffic_of_the_recorded_one_at_other_times() -> None:
    schedules = [[RandomSchedule(RECORDED, seed).decide(epoch, 0.1) for epoch in range(20)] for seed in (0, 0, 1)]
    assert schedules[0] == schedules[1] != schedules[2]
    for schedule in schedules:
        assert schedule != RECORDED
        for name in "ab":
            assert sorted(levels[name] for levels in schedule) == sorted(levels[name] for levels in RECORDED)


@given(budget=st.integers(50, 600), seed=st.integers(0, 5))
def test_random_schedule_within_a_budget(budget: int, seed: int) -> None:
    costs = {"a": (40.0, 2.0), "b": (12.0, 3.0)}
    controller = RandomSchedule.within(costs, 10, budget, seed)
    levels = [controller.decide(epoch, 0.1) for epoch in range(10)]
    spent = sum(costs[name][level] for each in levels for name, level in each.items())
    cheapest_rise = min([low - high for low, high in costs.values()])
    assert spent <= budget
    assert budget - spent < cheapest_rise or all(each["b"] == 0 for each in levels)


def test_budget_below_what_is_sent_at_least() -> None:
    with pytest.raises(ArgumentError, match="budget"):
        RandomSchedule.within({"a": (40.0, 2.0)}, 10, 19, 0)


class TestCostModelController:
    SECONDS: Mapping[str, Sequence[float]] = {
        "compression pays": (10.0, 5.0, 1.0),
        "it does not": (1.0, 2.0, 3.0),
        "hardly": (1.04, 1.02, 1.0),
        "in the middle": (3.0, 1.0, 2.0),
        "free": (0.0, 0.0, 0.0),
    }

    def test_the_mildest_level_near_the_best(self) -> None:
        def decided(slack: float) -> list[int]:
            controller = CostModelController(
                self.SECONDS, lambda name, level: self.SECONDS[name][level], 3, slack=slack
            )
            return list(controller.decide(0, 0.1).values())

        assert decided(0.05) == [2, 0, 0, 1, 0]
        assert decided(0.03) == [2, 0, 1, 1, 0]
        assert decided(0.0) == [2, 0, 2, 1, 0]

    def test_asks_anew_at_each_epoch(self) -> None:
        seconds = [1.0, 2.0]
        controller = CostModelController(["a"], lambda _, level: seconds[level], 2)
        assert controller.decide(0, 0.1) == {"a": 0}
        seconds.reverse()
        assert controller.decide(1, 0.1) == {"a": 1}

    @pytest.mark.parametrize("wrong", [math.nan, -1.0, math.inf])
    def test_what_is_no_time(self, wrong: float) -> None:
        with pytest.raises(MeasurementError, match="'a' at level 1"):
            CostModelController(["a"], lambda _, level: wrong if level else 1.0, 2).decide(0, 0.1)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("names", lambda: Accordion([])),
        ("names", lambda: Static("weight", 0)),
        ("threshold", lambda: Accordion(["a"], threshold=0)),
        ("switch_every", lambda: Accordion(["a"], switch_every=0)),
        ("decay", lambda: Accordion(["a"], decay=1.5)),
        ("low", lambda: Accordion(["a"], low=-1)),
        ("level", lambda: Static(["a"], 1.5)),  # type: ignore[arg-type]
        ("until", lambda: WarmUp(["a"], -1)),
        ("levels", lambda: WarmUp(["a"], 1, (1,))),
        ("schedule", lambda: Replay([])),
        ("schedule", lambda: Replay([{"a": 0}, {"b": 0}])),
        ("levels", lambda: CostModelController(["a"], lambda *_: 1.0, 0)),
        ("slack", lambda: CostModelController(["a"], lambda *_: 1.0, 2, slack=-0.1)),
    ],
)
def test_arguments_out_of_range(name: str, make) -> None:
    with pytest.raises(ArgumentError, match=name):
        make()
