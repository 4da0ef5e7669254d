"""Time to accuracy on a shaped link: what is on the clock, what is compared, and what is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from benchmarks import time_to_accuracy
from benchmarks._shaped_training import ACCORDION, Course, energies_kept, energy_kept, train_until, wide_digits
from benchmarks._state import State
from benchmarks.time_to_accuracy import choice, measure, merged, ratio, summarise, workload

from taut.distributed import KEPT, LinkLab, LocalRanks, NoCompression, PowerSGD, TopK

pytest.importorskip("sklearn", reason="scikit-learn's digits are not installed")


def run(seconds: float, steps: int = 10, reached: bool = True) -> dict[str, Any]:
    return {"seconds": seconds, "steps": steps, "step_seconds": seconds / steps, "reached": reached, "sent": None}


def predictions(**seconds: float) -> dict[str, Any]:
    verdicts = {name: "helps" if value < seconds["fp16"] else "hurts" for name, value in seconds.items()}
    return {
        "predictions": [{"name": n, "seconds": [s, s, s], "verdict": verdicts[n]} for n, s in seconds.items()],
        "answer": "",
    }


class TestCourses:
    def test_the_slowest_rank_of_each_step_counts(self) -> None:
        ranks = [Course([1.0, 2.0, 1.0], [50.0, 60.0, 95.0], 7.0), Course([3.0, 1.0, 1.0], [50.0, 60.0, 95.0], 7.0)]
        found = merged(ranks, 95.0)
        assert found == {"reached": True, "seconds": 6.0, "steps": 3, "step_seconds": 2.0, "sent": 7.0}

    def test_a_training_that_was_given_up_has_not_reached_the_goal(self) -> None:
        assert not merged([Course([1.0], [94.9])], 95.0)["reached"]


class TestChoice:
    def test_the_fastest_that_helps(self) -> None:
        assert choice(predictions(fp16=3.0, sign=2.0, first=1.0, slow=9.0)) == "first"

    def test_the_fastest_of_those_that_keep_enough(self) -> None:
        kept = {"fp16": 1.0, "sign": 0.6, "first": 0.1, "slow": 1.0}
        assert choice(predictions(fp16=3.0, sign=2.0, first=1.0, slow=9.0), kept, 0.5) == "sign"
        assert choice(predictions(fp16=3.0, sign=2.0, first=1.0, slow=9.0), kept, 0.7) == "fp16"

    def test_fp16_where_nothing_helps(self) -> None:
        assert choice(predictions(fp16=3.0, sign=4.0)) == "fp16"


class TestEnergyKept:
    GRADIENTS: ClassVar = {"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]), "bias": torch.tensor([5.0, 0.0])}

    def test_all_without_compression(self) -> None:
        assert energy_kept(NoCompression(), self.GRADIENTS) == 1

    def test_the_squares_of_the_entries_that_are_sent(self) -> None:
        assert energy_kept(TopK(0.25), self.GRADIENTS) == pytest.approx((16 + 25) / 50)

    def test_all_of_a_matrix_within_the_rank(self) -> None:
        assert energy_kept(PowerSGD(2), self.GRADIENTS) == pytest.approx(1)


class TestComparison:
    def test_ratios_are_paired_by_seed(self) -> None:
        """Seeds differ a hundredfold, and the ratio is the same in each: the interval is a point."""
        base, own = [run(2.0 * 10**seed) for seed in range(3)], [run(1.0 * 10**seed) for seed in range(3)]
        assert ratio(base, own, "seconds") == pytest.approx([2.0, 2.0, 2.0])

    def test_the_mean_of_ratios_is_geometric(self) -> None:
        estimate, low, high = ratio([run(1.0), run(4.0)], [run(2.0), run(2.0)], "seconds")
        assert estimate == pytest.approx(1.0)
        assert low * high == pytest.approx(1.0)

    def test_sooner_is_time_and_steps_are_told_beside_it(self) -> None:
        runs = {"fp16": [run(8.0, 10)] * 3, "sign": [run(4.0, 20)] * 3}
        row = summarise("advised", "sign", runs, predictions(fp16=0.8, sign=0.2))
        assert row["times_sooner_than_fp16"] == pytest.approx([2.0] * 3)
        assert row["times_as_many_steps"] == pytest.approx([2.0] * 3)
        assert row["step_times_faster_than_fp16"] == pytest.approx([4.0] * 3)
        assert row["predicted_step_times_faster"] == pytest.approx(4.0)

    def test_no_time_is_claimed_where_a_run_has_not_reached_the_goal(self) -> None:
        runs = {"fp16": [run(8.0)] * 3, ACCORDION: [run(1.0), run(1.0), run(1.0, reached=False)]}
        row = summarise("Accordion", ACCORDION, runs, predictions(fp16=0.8))
        assert row["times_sooner_than_fp16"] is None
        assert row["runs_that_reached"] == 2
        assert row["predicted_step_times_faster"] is None


def test_runs_take_turns_and_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int]] = []

    def course_of(_: Any, arm: str, seed: int) -> dict[str, Any]:
        done.append((arm, seed))
        return run(1.0)

    monkeypatch.setattr(time_to_accuracy, "course_of", course_of)
    lab = cast(LinkLab, None)
    arms = {"fp16": "fp16", "advised": "sign"}
    measure(State(tmp_path / "state.json"), lab, arms, 2)
    assert done == [("fp16", 0), ("sign", 0), ("sign", 1), ("fp16", 1)]
    found = measure(State(tmp_path / "state.json"), lab, arms, 3)
    assert done[4:] == [("fp16", 2), ("sign", 2)]
    assert [len(runs) for runs in found.values()] == [3, 3]


def test_the_workload_has_a_million_parameters_and_all_of_the_step() -> None:
    found = workload(repeats=1)
    assert found.elements >= 1_000_000
    assert 0 < found.ready[0] <= found.backward
    assert found.other > 0


@pytest.mark.slow
def test_what_advice_says_that_compressors_keep_is_what_they_keep() -> None:
    assert energies_kept() == pytest.approx(KEPT, abs=0.02)


@pytest.mark.slow
def test_every_arm_learns_and_all_ranks_stop_at_the_same_step() -> None:
    with LocalRanks(2) as ranks:
        for arm in ("fp32", "fp16", "top-k 1 %", ACCORDION):
            courses: Sequence[Course] = ranks.run(train_until, arm, 0, 80.0, 200)
            assert courses[0].scores == courses[1].scores
            assert courses[0].scores[-1] >= 80.0 > max(courses[0].scores[:-1], default=-math.inf)
            assert len(courses[0].seconds) == len(courses[1].seconds) == len(courses[0].scores)
            assert (courses[0].sent is None) == (arm in ("fp32", "fp16"))
        given_up = ranks.run(train_until, "fp32", 0, 101.0, 3)[0]
        assert len(given_up.scores) == 3


def test_a_step_has_the_batch_of_all_ranks() -> None:
    training = wide_digits()
    assert training.batch == 128
    assert training.steps == 1200 // 128
