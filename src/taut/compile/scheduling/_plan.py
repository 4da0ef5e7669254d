"""One program's schedules: what its steps cost, its best stages, and schedules without barriers."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from taut.compile._parallel import Schedule, apply_schedule, threads_of
from taut.compile._program import Lowered
from taut.compile.interop import Stage
from taut.compile.scheduling._candidates import barrier_free, bound, predicted
from taut.compile.scheduling._costs import StageCosts
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._operators import WORTH_SPLITTING, Operators, operators_of
from taut.compile.scheduling._search import StageOracle, StagePlan, search_stages
from taut.compile.scheduling._steps import step_seconds
from taut.runtime import Session

SEQUENTIAL, STAGES = "sequential", "stages"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A program that may be kept.

    Attributes:
        name: of the schedule.
        lowered: its program.
        session: runs it.
        predicted: seconds of a call.
        threads: that a call keeps busy.
    """

    name: str
    lowered: Lowered
    session: Session
    predicted: float
    threads: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """A program with the costs of its steps.

    Attributes:
        lowered: the sequential program.
        costs: of stages, as far as they were asked for.
        operators: what a search places.
        durations: seconds of each step on one worker.
        split: seconds of steps on all workers, where that may pay.
        estimated: those of these steps that were not measured so.
        known: seconds of the stages of operators that searches have measured.
        assumed: stages that could not be measured, though a search wanted to.
    """

    lowered: Lowered
    costs: StageCosts
    operators: Operators
    durations: list[float]
    split: dict[int, float]
    estimated: set[int]
    known: dict[Stage, float] = dataclasses.field(default_factory=dict)
    assumed: set[Stage] = dataclasses.field(default_factory=set)

    def bound(self) -> tuple[float, float]:
        """Seconds of the critical path, and of the work shared evenly."""
        return bound(self.lowered.blocks[0], self.durations, self.split, self.costs.workers)

    def sequential(self, prefix: str = "") -> Candidate:
        """The sequential program."""
        session = self.costs.kernels.session(self.lowered)
        return Candidate(prefix + SEQUENTIAL, self.lowered, session, math.fsum(self.durations), 1)

    def staged(self, plan: StagePlan) -> tuple[Schedule, float]:
        """The schedule of stages, and seconds of a call: theirs, and those of steps that stay in their places."""
        placed = set(self.costs.steps)
        others = math.fsum(seconds for step, seconds in enumerate(self.durations) if step not in placed)
        return plan.stages(self.costs.workers), others + math.fsum(plan.schedule.costs or ())

    def candidates(self, schedules: Mapping[str, tuple[Schedule, float | None]]) -> list[Candidate]:
        """The programs of schedules with predicted seconds, or None for an estimate, unless a kernel is missing."""
        block = self.lowered.blocks[0]
        given = {
            name: (schedule, predicted(block, schedule, self.durations, self.split) if seconds is None else seconds)
            for name, (schedule, seconds) in schedules.items()
        }
        return programs_of(self.lowered, given, self.costs.kernels)


def programs_of(lowered: Lowered, schedules: Mapping[str, tuple[Schedule, float]], kernels: Kernels) -> list[Candidate]:
    """The programs of schedules with predicted seconds, without those for which a kernel cannot be generated."""
    made = {name: apply_schedule(lowered, schedule) for name, (schedule, _) in schedules.items()}
    kernels.add({key: recipe for program in made.values() for key, recipe in program.recipes().items()})
    return [
        Candidate(name, made[name], kernels.session(made[name]), seconds, threads_of(schedule))
        for name, (schedule, seconds) in schedules.items()
        if kernels.has(made[name].recipes())
    ]


def measure_steps(lowered: Lowered, inputs: Sequence[Any], workers: int, kernels: Kernels) -> Measured:
    """Time every step in the program, on one worker; what it takes on all is an estimate until `measure_split`.

    Args:
        lowered: a sequential program with static sizes.
        inputs: of a call.
        workers: threads.
        kernels: to generate in.
    """
    costs = StageCosts(lowered, workers, kernels)
    costs.generate()
    durations = step_seconds(lowered, kernels.session(lowered), inputs)
    split = {
        step: durations[step] / workers
        for step in costs.steps
        if workers > 1 and durations[step] >= WORTH_SPLITTING and costs.can_split(step)
    }
    operators = operators_of(lowered.blocks[0], durations, graph=lowered.graph)
    return Measured(lowered, costs, operators, durations, split, set(split))


def measure_split(
    measured: Measured, seconds: float = math.inf, progress: Callable[[float], None] = lambda _: None
) -> None:
    """Time steps alone on all workers, the longest first; those that gain nothing are not split any more.

    Args:
        measured: what is known of the program.
        seconds: to spend; the steps that are left, and those that other processes disturbed, are taken to gain what the
            others do.
        progress: told the share that is done.
    """
    end = time.perf_counter() + seconds
    pending = sorted(measured.estimated, key=lambda step: -measured.durations[step])
    shares = []
    for position, step in enumerate(pending):
        if time.perf_counter() > end:
            break
        found = measured.costs.split([step])
        progress((position + 1) / len(pending))
        if found is None:
            continue
        shares.append(found / measured.durations[step])
        measured.estimated.remove(step)
        measured.split[step] = found
        if shares[-1] >= 1:
            del measured.split[step]
    for step in measured.estimated:
        if shares:
            measured.split[step] = measured.durations[step] * min(1.0, statistics.median(shares))


def find_stages(
    measured: Measured,
    budget: float,
    progress: Callable[[int], None],
    merged: Mapping[frozenset[int], float] = MappingProxyType({}),
) -> StagePlan:
    """The best stages of a program; `merged` has seconds of convolutions merged into one, by their operators.

    Groups of a stage are as many as there are workers, or convolutions to merge, if these are more.
    """
    oracle = StageOracle(
        measured.operators,
        measured.costs,
        measured.durations,
        measured.split,
        merged,
        measured.known,
        measured.assumed,
    )
    groups = max([measured.costs.workers, *map(len, merged)])
    return search_stages(measured.operators, oracle, groups, budget=budget, progress=progress)


def candidates_of(measured: Measured, plan: StagePlan, prefix: str = "", *, exact: bool = False) -> list[Candidate]:
    """The programs of a plan and of schedules without barriers; `exact` if results must stay the same bit for bit."""
    block, workers = measured.lowered.blocks[0], measured.costs.workers
    others = barrier_free(block, measured.operators, measured.durations, measured.split, workers, exact=exact)
    schedules: dict[str, tuple[Schedule, float | None]] = {prefix + STAGES: measured.staged(plan)}
    schedules |= {prefix + name: (schedule, None) for name, schedule in others.items()}
    return measured.candidates(schedules)
