"""The study of adaptive compression: its bytes are those of the formulas, and its report says what they are worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from benchmarks import adaptive_training
from benchmarks._adaptive_report import claims, compared, report
from benchmarks._trainings import Training
from benchmarks.adaptive_training import ARMS, BETWEEN, Task, bytes_by_formula, run
from torch import nn

from taut.distributed import TopK

EPOCHS, BATCH = 6, 8


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


def training(steps: int = 5) -> Training:
    """Classes of random points, of which nothing can be learned."""
    random = torch.Generator().manual_seed(0)
    points = torch.randn((steps * BATCH, 20), generator=random)
    classes = torch.randint(0, 10, (steps * BATCH,), generator=random)
    return Training("tiny", network, points, classes, (points, classes), BATCH, 0.1, 0.9, lambda *_: 0.0)


def long_training() -> Training:
    """Whose last epochs are beyond the steps that torch sends whole."""
    return training(300)


@pytest.fixture(scope="module")
def finished() -> Iterator[dict[tuple[str, str, int], dict[str, Any]]]:
    """A run of each arm but torch's."""
    task = Task(training, EPOCHS, 1, TopK(0.1), TopK(0.01), BETWEEN)
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(adaptive_training.TASKS, "tiny", task)
        for arm in ARMS:
            if arm != "torch":
                outcome = run("tiny", arm, 0, training(), found)
                found["tiny", arm, 0] = {"sent": outcome.sent, "levels": outcome.levels}
        yield found


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "torch"])
def test_bytes_are_those_of_the_formula_to_the_byte(
    arm: str, finished: dict[tuple[str, str, int], dict[str, Any]]
) -> None:
    assert bytes_by_formula("tiny", arm, 0, training(), finished) == finished["tiny", arm, 0]["sent"]


def test_the_formula_of_the_levels_by_hand(finished: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    """An index and a value of 4 bytes each for an entry that is kept, to 3 other ranks; 24 bytes say how many."""
    for arm, kept in (("low", 60 + 3 + 30 + 1), ("high", 6 + 1 + 3 + 1)):
        assert finished["tiny", arm, 0]["sent"] == EPOCHS * [5 * 3 * (24 + 8 * kept)]


def test_the_random_schedule_has_the_levels_of_accordion_in_another_order(
    finished: dict[tuple[str, str, int], dict[str, Any]],
) -> None:
    own, random = (finished["tiny", arm, 0]["levels"] for arm in ("accordion", "random"))
    for name in own[0]:
        assert sorted(levels[name] for levels in own) == sorted(levels[name] for levels in random)


@pytest.mark.slow
def test_bytes_of_torchs_hook_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(long_training, 5, 1, TopK(0.1), TopK(0.01), BETWEEN)
    monkeypatch.setitem(adaptive_training.TASKS, "tiny", task)
    sent = run("tiny", "torch", 0, long_training(), {}).sent
    assert sent == bytes_by_formula("tiny", "torch", 0, long_training(), {})
    whole, factors = 600 + 30 + 300 + 10, 50 + 30 + 40 + 10
    assert sent == [1.5 * 4 * steps for steps in [300 * whole] * 3 + [100 * whole + 200 * factors, 300 * factors]]


SEEDS = range(6)


@pytest.mark.parametrize(("gain", "effect"), [(1.0, "helps"), (0.0, "ties"), (-1.0, "hurts")])
def test_the_effect_is_that_of_the_interval_of_paired_differences(gain: float, effect: str) -> None:
    base = {seed: 90 + 3.0 * seed for seed in SEEDS}  # seeds differ by more than the arms do
    own = {seed: score + gain + (0.1 if seed % 2 else -0.1) for seed, score in base.items()}
    found = compared(own, base)
    assert found["effect"] == effect
    assert found["difference"][0] == pytest.approx(gain)


def test_equal_differences_of_few_seeds_say_nothing() -> None:
    assert compared({0: 1.0, 1: 2.0}, {0: 0.5, 1: 1.5})["effect"] == "too few seeds"


def rows(score: float, sent: float) -> list[dict[str, Any]]:
    """Arms of a task: low, random, and Accordion that gains a score over both and sends so many bytes."""
    arms = {"low": (90.0, 3e6), "accordion": (90.0 + score, sent), "random": (90.0, sent)}
    return [
        {"task": "one", "arm": arm, "seed": seed, "score": mean + 0.1 * (seed % 3), "sent": [bytes_sent]}
        for arm, (mean, bytes_sent) in arms.items()
        for seed in SEEDS
    ]


@pytest.mark.parametrize(
    ("score", "sent", "kept", "enough"), [(1.0, 1e6, True, True), (0.0, 2.5e6, True, False), (-1.0, 2e6, False, True)]
)
def test_the_claim_is_the_score_of_low_at_fewer_bytes(score: float, sent: float, kept: bool, enough: bool) -> None:
    (claim,) = claims(report(rows(score, sent)))
    assert claim["not_below_interval_of_low"] == kept
    assert claim["enough_fewer"] == enough
    assert claim["times_fewer_than_low"] == pytest.approx(3e6 / sent)
    assert set(claim["effects"]) == {"low", "random"}
