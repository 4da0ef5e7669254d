"""What is chosen of several programs, and what is said where time or cores did not suffice."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_scheduling import Fire, X

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.codegen import Built, Recipe, build
from taut.compile import CompiledModel, ScheduledModel, compile_model, schedule
from taut.compile.scheduling import CandidateTime, ScheduleReport, StageTime, summary
from taut.compile.scheduling._choose import choose
from taut.compile.scheduling._costs import StageCosts
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._plan import Candidate, Measured, find_stages, measure_split, measure_steps
from taut.errors import BuildError, Interrupted
from taut.stats import Clock, compare


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_model(Fire().eval(), (X,))


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels()


@pytest.fixture
def long_steps(compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step seems to take long enough to be split."""
    durations = [1e-5] * len(compiled.lowered.blocks[0].steps)
    monkeypatch.setattr("taut.compile.scheduling._plan.step_seconds", lambda *_: durations)


@pytest.fixture
def measured(compiled: CompiledModel, kernels: Kernels, long_steps: None) -> Measured:
    return measure_steps(compiled.lowered, (X,), 2, kernels)


class Slept:
    """Stands for a session whose calls take known seconds; `others` is what a busy host adds to each."""

    def __init__(self, clock: list[float], seconds: float, others: float = 0.0) -> None:
        self.seconds = seconds
        self._clock, self._others = clock, others

    def __call__(self, *_: object) -> None:
        self._clock[0] += self.seconds + self._others

    def time(self, _: Sequence[Any], repeats: int) -> float:
        self._clock[0] += repeats * self.seconds
        return self.seconds


def candidates(compiled: CompiledModel, **sessions: Slept) -> list[Candidate]:
    return [
        Candidate(name, compiled.lowered, session, session.seconds, 1)  # pyright: ignore[reportArgumentType]
        for name, session in sessions.items()
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed; only calls of made-up sessions let them pass."""
    now = [0.0]
    made_up = Clock("made up", lambda: now[0], lambda: now[0])
    monkeypatch.setattr("taut.compile.scheduling._choose.compare", functools.partial(compare, clock=made_up))
    times = SimpleNamespace(perf_counter=lambda: now[0], thread_time=lambda: now[0])
    monkeypatch.setattr("taut.compile.scheduling._undisturbed.time", times)
    return now


def test_the_best_is_kept(compiled: CompiledModel, clock: list[float]) -> None:
    made = candidates(compiled, sequential=Slept(clock, 4e-3), list=Slept(clock, 3e-3), intra=Slept(clock, 2e-3))
    choice = choose(made, (), 3.0)
    assert choice.kept.name == "intra"
    assert choice.verdict is not None
    assert (choice.verdict.candidate, choice.verdict.verdict) == ("intra", "faster")
    assert choice.verdict.ratio == pytest.approx(2)
    assert choice.seconds == pytest.approx({"sequential": 4e-3, "list": 3e-3, "intra": 2e-3})
    assert clock[0] <= 3.1


@pytest.mark.parametrize("others", [2e-3, 4e-3])
def test_what_is_faster_only_where_nobody_disturbs_it_is_not_kept(
    compiled: CompiledModel, clock: list[float], others: float
) -> None:
    made = candidates(compiled, sequential=Slept(clock, 4e-3), intra=Slept(clock, 2e-3, others))
    choice = choose(made, (), 3.0)
    assert choice.kept.name == "sequential"
    assert choice.seconds["intra"] < choice.seconds["sequential"]


def test_equal_programs_and_none_leave_the_sequential_one(compiled: CompiledModel, clock: list[float]) -> None:
    made = candidates(compiled, sequential=Slept(clock, 4e-3), stages=Slept(clock, 4e-3))
    assert choose(made, (), 3.0).kept.name == "sequential"
    alone = choose(made[:1], (), 3.0)
    assert alone.kept.name == "sequential"
    assert alone.verdict is None


def test_where_calls_take_long_those_predicted_best_are_timed(compiled: CompiledModel, clock: list[float]) -> None:
    sessions = {
        name: Slept(clock, seconds) for name, seconds in [("sequential", 0.4), ("a", 0.3), ("b", 0.2), ("c", 0.25)]
    }
    choice = choose(candidates(compiled, **sessions), (), 10.0)
    assert choice.seconds.keys() == {"sequential", "b"}
    assert choice.kept.name == "b"
    assert clock[0] <= 12


def test_steps_without_time_or_cores_are_estimated_by_what_others_gain(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = measured.split
    assert others
    monkeypatch.setattr(
        measured.costs, "split", lambda steps: 0.6 * measured.durations[first] if steps == [first] else None
    )
    measure_split(measured)
    assert measured.estimated == set(others)
    assert measured.split == pytest.approx({step: 0.6 * measured.durations[step] for step in [first, *others]})
    before = dict(measured.split)
    measure_split(measured, 0.0)
    assert measured.split == before


def test_steps_that_gain_nothing_are_not_split(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured.costs, "split", lambda steps: 1.1 * measured.durations[steps[0]])
    measure_split(measured)
    assert not measured.split
    assert not measured.estimated


def test_stages_that_others_disturb_are_estimated(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def disturbed(_: object, stages: object) -> None:
        asked.append(stages)

    monkeypatch.setattr(StageCosts, "_measure", disturbed)
    plan = find_stages(measured, math.inf, lambda _: None)
    assert all(plan.estimated)
    assert not plan.complete
    assert plan.measured == 0
    assert len(asked) == len(measured.assumed)
    assert plan.schedule.cost is not None
    assert plan.schedule.cost <= sum(measured.durations) * 1.001


def test_the_gap_is_that_of_the_kept_program_and_never_below_zero() -> None:
    stages = (StageTime("concurrent", (("a",),), 1e-3, 1e-3),)
    made = (CandidateTime("sequential", 9e-3, 9e-3), CandidateTime("list", 5e-3, 6e-3))
    report = ScheduleReport(
        2,
        "list",
        "stages",
        6e-3,
        4e-3,
        5e-3,
        stages,
        made,
        None,
        1,
        1,
        1,
        1,
        1,
        0.1,
        complete=True,
        untimed=("stages",),
    )
    assert report.bound == 5e-3
    assert report.gap == pytest.approx(0.2)
    assert report.measured_total == 1e-3
    below = dataclasses.replace(report, critical_path=7e-3)
    assert (below.bound, below.gap) == (6e-3, 0)


def test_kernels_are_generated_once(compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(recipes: Sequence[Recipe]) -> Built:
        asked.append(len(recipes))
        return build(recipes)

    monkeypatch.setattr("taut.compile.scheduling._kernels.build", counted)
    kernels = Kernels()
    sessions = [kernels.session(compiled.lowered) for _ in range(2)]
    assert asked == [len(compiled.lowered.recipes())]
    assert all(torch.equal(session(X)[0], compiled(X)) for session in sessions)
    StageCosts(compiled.lowered, 2, kernels).generate()
    assert len(asked) == 2
    assert kernels.seconds > 0


def test_a_kernel_that_cannot_be_generated_is_asked_for_once(
    compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def failing(recipes: Sequence[Recipe]) -> Built:
        asked.append(len(recipes))
        return Built(None, {}, {recipe.key: "no room" for recipe in recipes}, {})

    monkeypatch.setattr("taut.compile.scheduling._kernels.build", failing)
    kernels = Kernels()
    for _ in range(2):
        with pytest.raises(BuildError, match="no room"):
            kernels.session(compiled.lowered)
    assert len(asked) == 1


@pytest.mark.usefixtures("long_steps")
def test_an_interrupt_while_steps_are_timed_keeps_the_sequential_program(compiled: CompiledModel) -> None:
    def stop(doing: str, share: float) -> None:
        if doing == "timing each step" and share > 0:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="sequential program is kept") as caught:
        schedule(compiled, (X,), budget=1, exact=True, progress=stop)
    result = caught.value.result
    assert isinstance(result, ScheduledModel)
    assert result.schedule.estimated_steps > 0
    assert all(stage.estimated for stage in result.schedule.stages)
    assert torch.equal(result(X), compiled(X))


def test_a_small_budget_is_kept_and_its_report_says_what_was_estimated(compiled: CompiledModel) -> None:
    doings: list[str] = []
    made = schedule(compiled, (X,), budget=1e-4, exact=True, progress=lambda doing, _: doings.append(doing))
    report = made.schedule
    assert torch.equal(made(X), compiled(X))
    assert not report.complete
    assert report.estimated_steps > 0 or any(stage.estimated for stage in report.stages)
    assert any("estimated for want of time" in line for line in summary(report))
    assert doings[0] == "timing each step"
