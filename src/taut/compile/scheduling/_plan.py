"""One program's schedules: what its steps cost, its best stages, and schedules without barriers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from taut.codegen import build
from taut.compile._measured_schedule import session_of
from taut.compile._parallel import Schedule, apply_schedule, threads_of
from taut.compile._program import Lowered
from taut.compile.interop import Stage
from taut.compile.scheduling._candidates import barrier_free, bound, predicted
from taut.compile.scheduling._costs import StageCosts
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
        split: seconds of steps that can run on all workers, and are worth it.
        known: seconds of the stages of operators that searches have measured.
    """

    lowered: Lowered
    costs: StageCosts
    operators: Operators
    durations: list[float]
    split: Mapping[int, float]
    known: dict[Stage, float] = dataclasses.field(default_factory=dict)

    def bound(self) -> tuple[float, float]:
        """Seconds of the critical path, and of the work shared evenly."""
        return bound(self.lowered.blocks[0], self.durations, self.split, self.costs.workers)

    def sequential(self, prefix: str = "") -> Candidate:
        """The sequential program."""
        session = session_of(self.lowered, self.costs.built)
        return Candidate(prefix + SEQUENTIAL, self.lowered, session, math.fsum(self.durations), 1)

    def candidates(self, schedules: Mapping[str, tuple[Schedule, float | None]]) -> list[Candidate]:
        """The programs of schedules with predicted seconds, or None for an estimate; without those that lack a kernel.

        Kernels of parts that were not measured are generated.
        """
        made = {name: apply_schedule(self.lowered, schedule) for name, (schedule, _) in schedules.items()}
        recipes = {key: recipe for program in made.values() for key, recipe in program.recipes().items()}
        built = self.costs.built
        if recipes.keys() - built.symbols.keys():
            built = build(list(recipes.values()))
        block, found = self.lowered.blocks[0], []
        for name, (schedule, seconds) in schedules.items():
            if made[name].recipes().keys() <= built.symbols.keys():
                if seconds is None:
                    seconds = predicted(block, schedule, self.durations, self.split)
                session = session_of(made[name], built)
                found.append(Candidate(name, made[name], session, seconds, threads_of(schedule)))
        return found


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
    oracle = StageOracle(measured.operators, measured.costs, measured.durations, measured.split, merged, measured.known)
    return search_stages(measured.operators, oracle, measured.costs.workers, budget=budget, progress=progress)


def candidates_of(measured: Measured, plan: StagePlan, prefix: str = "", *, exact: bool = False) -> list[Candidate]:
    """The programs of a plan and of schedules without barriers; `exact` if results must stay the same bit for bit."""
    block, workers = measured.lowered.blocks[0], measured.costs.workers
    assert plan.schedule.cost is not None
    schedules: dict[str, tuple[Schedule, float | None]] = {prefix + STAGES: (plan.stages(workers), plan.schedule.cost)}
    others = barrier_free(block, measured.operators, measured.durations, measured.split, workers, exact=exact)
    schedules |= {prefix + name: (schedule, None) for name, schedule in others.items()}
    return measured.candidates(schedules)
