"""One program's schedules: what its steps cost, its best stages, and schedules without barriers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from taut.codegen import Built
from taut.compile._measured_schedule import session_of
from taut.compile._parallel import Schedule, Stages, apply_schedule
from taut.compile._program import Lowered
from taut.compile.scheduling._candidates import barrier_free, bound, predicted
from taut.compile.scheduling._costs import StageCosts, split_stages
from taut.compile.scheduling._operators import LIGHT, Operators, operators_of
from taut.compile.scheduling._search import StageOracle, StagePlan, search_stages
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
    """

    name: str
    lowered: Lowered
    session: Session
    predicted: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """A program with the costs of its steps.

    Attributes:
        lowered: the sequential program.
        costs: of stages, as far as they were asked for.
        operators: what a search places.
        durations: seconds of each step on one worker.
        split: seconds of steps that can run on all workers, and are worth it.
    """

    lowered: Lowered
    costs: StageCosts
    operators: Operators
    durations: list[float]
    split: Mapping[int, float]

    @property
    def built(self) -> Built:
        """The kernels."""
        return self.costs.built

    def bound(self) -> tuple[float, float]:
        """Seconds of the critical path, and of the work shared evenly."""
        block = self.lowered.blocks[0]
        return bound(block, self.operators, self.durations, self.split, self.costs.workers)

    def candidate(self, name: str, schedule: Schedule | None, seconds: float | None = None) -> Candidate:
        """The program of a schedule; the sequential one without a schedule."""
        made = self.lowered if schedule is None else apply_schedule(self.lowered, schedule)
        if seconds is None:
            seconds = predicted(self.lowered.blocks[0], schedule, self.durations, self.split)
        return Candidate(name, made, session_of(made, self.built), seconds)


def measure_steps(lowered: Lowered, workers: int, progress: Callable[[float], None]) -> Measured:
    """Measure every step of a program alone, on one worker and, where that may pay, on all."""
    costs = StageCosts(lowered, workers)
    block = lowered.blocks[0]
    durations = [0.0] * len(block.steps)
    split: dict[int, float] = {}
    for position, step in enumerate(costs.steps):
        durations[step] = costs.sequential([step])
        if durations[step] >= LIGHT and costs.can_split(step):
            split[step] = costs.split([step])
        progress((position + 1) / len(costs.steps))
    return Measured(lowered, costs, operators_of(block, durations), durations, split)


def find_stages(
    measured: Measured,
    budget: float,
    progress: Callable[[int], None],
    merged: Mapping[frozenset[int], float] = MappingProxyType({}),
) -> StagePlan:
    """The best stages of a program; `merged` has seconds of convolutions merged into one, by their operators."""
    oracle = StageOracle(measured.operators, measured.costs, measured.durations, measured.split, merged)
    return search_stages(measured.operators, oracle, measured.costs.workers, budget=budget, progress=progress)


def candidates_of(measured: Measured, plan: StagePlan, prefix: str = "") -> list[Candidate]:
    """The programs of a plan and of schedules without barriers."""
    block, workers = measured.lowered.blocks[0], measured.costs.workers
    assert plan.schedule.costs is not None
    found = [measured.candidate(prefix + STAGES, plan.stages(workers), math.fsum(plan.schedule.costs))]
    if measured.split:
        parts = dict.fromkeys(measured.split, workers)
        intra = Stages(tuple(split_stages(measured.costs.steps, parts)), workers)
        found.append(measured.candidate(prefix + "intra", intra))
    others = barrier_free(block, measured.operators, measured.durations, measured.split, workers)
    return found + [measured.candidate(prefix + name, schedule) for name, schedule in others.items()]
