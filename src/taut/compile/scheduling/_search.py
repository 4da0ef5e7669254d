"""The cheapest stages by measured costs, most of which need not be measured."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from taut.compile._parallel import Stages
from taut.compile.interop import OperatorGraph, Oracle, Schedule, Stage, Strategy, count, partition, search
from taut.compile.interop import Stages as StageBatch
from taut.compile.scheduling._costs import Groups, StageCosts, split_stages
from taut.compile.scheduling._operators import Operators
from taut.errors import GraphError

R = 3
"""Most operators of a group, as the paper's default."""
_STRATEGIES: tuple[Strategy, ...] = ("concurrent", "intra")
_WITH_MERGING: tuple[Strategy, ...] = ("concurrent", "merge", "intra")
_MOST_TRANSITIONS = 3_000_000
_MOST_PART, _FEWEST_PART = 100, 8
_NEVER = 10
"""How many times what it takes alone a merged stage counts that was not priced."""
_HOPE = 0.9
"""What share of its estimate a stage that was not measured may take: estimates add up steps that ran alone."""


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Stages that a search found.

    Attributes:
        schedule: over operators, with what was measured of each stage.
        code: for each stage of the schedule the stages of the program that make it up.
        complete: whether every stage that could have been cheaper was measured.
        measured: how many stages were.
        seconds: that the search took.
    """

    schedule: Schedule
    code: tuple[tuple[Groups, ...], ...]
    complete: bool
    measured: int
    seconds: float

    def stages(self, workers: int) -> Stages:
        """The schedule of the program."""
        return Stages(tuple(stage for made in self.code for stage in made), workers)


class MeasuringOracle(Protocol):
    """Costs of stages over operators: measured where they are known, else an estimate.

    Attributes:
        known: seconds of stages that were measured.
    """

    known: dict[Stage, float]

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Those to consider."""
        ...

    def code(self, stage: Stage) -> tuple[Groups, ...]:
        """What a stage is in the program."""
        ...

    def plain(self, stage: Stage) -> Stage:
        """The stage under the name of what it does."""
        ...

    def measure(self, stage: Stage) -> float:
        """Seconds of a stage, measured when it is first asked for."""
        ...

    def cost(self, stage: Stage) -> float | None:
        """Seconds of a stage that was measured."""
        ...

    def estimate(self, stage: Stage) -> float:
        """What a stage would take if its operators took as long as alone."""
        ...


class StageOracle:
    """Costs of the stages of a program for workers.

    Args:
        operators: what stages consist of.
        costs: measures.
        durations: seconds of each step on one worker.
        split: seconds of steps that can run on all workers, and are worth it.
        merged: seconds of convolutions merged into one, by their operators.

    Attributes:
        known: seconds of stages that were measured.
    """

    def __init__(
        self,
        operators: Operators,
        costs: StageCosts,
        durations: Sequence[float],
        split: Mapping[int, float],
        merged: Mapping[frozenset[int], float] = MappingProxyType({}),
        known: dict[Stage, float] | None = None,
    ) -> None:
        self._operators = operators
        self._costs = costs
        self._split = split
        self._merged = merged
        self._alone = np.array([sum(durations[step] for step in own) for own in operators.steps])
        self._shared = np.array([sum(split.get(step, durations[step]) for step in own) for own in operators.steps])
        self.known: dict[Stage, float] = {} if known is None else known

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Those to consider: merging where there are prices of it."""
        return _WITH_MERGING if self._merged else _STRATEGIES

    def code(self, stage: Stage) -> tuple[Groups, ...]:
        """What a stage is in the program."""
        groups = [sorted(step for number in group for step in self._operators.steps[number]) for group in stage.groups]
        if stage.strategy == "intra":
            parts = {step: self._costs.workers for step in groups[0] if step in self._split}
            return tuple(split_stages(groups[0], parts))
        return (tuple(map(tuple, groups)),)

    def plain(self, stage: Stage) -> Stage:
        """The stage under the name of what it does: with nothing to split or to merge it is just run."""
        merges = stage.strategy == "merge" and len(stage.groups) > 1
        splits = stage.strategy == "intra" and any(
            step in self._split for number in stage.operators for step in self._operators.steps[number]
        )
        return stage if merges or splits else Stage(stage.groups)

    def measure(self, stage: Stage) -> float:
        """Seconds of a stage, measured when it is first asked for."""
        if self.cost(stage) is None:
            self.known[stage] = self._costs.stages(self.code(stage))
        found = self.cost(stage)
        assert found is not None
        return found

    def cost(self, stage: Stage) -> float | None:
        """Seconds of a stage that was measured."""
        if stage.strategy == "merge" and len(stage.groups) > 1:
            return self._merged.get(frozenset(stage.operators))
        return self.known.get(stage)

    def estimate(self, stage: Stage) -> float:
        """What a stage would take if its steps took as long as alone."""
        if stage.strategy == "merge" and len(stage.groups) > 1:
            return _NEVER * float(self._alone[list(stage.operators)].sum())
        if stage.strategy == "intra":
            return float(self._shared[list(stage.operators)].sum())
        loads = [0.0] * self._costs.workers
        for position, group in enumerate(stage.groups):
            loads[position % len(loads)] += float(self._alone[list(group)].sum())
        return max(loads)


def _believed(oracle: MeasuringOracle, share: float) -> Oracle:
    """An oracle that takes `share` of its estimate for what was not measured."""

    def believe(stage: Stage) -> float:
        stage = oracle.plain(stage)
        known = oracle.cost(stage)
        return share * oracle.estimate(stage) if known is None else known

    return lambda stages: np.array([believe(stage) for stage in stages])


def search_stages(
    operators: Operators,
    oracle: MeasuringOracle,
    workers: int,
    *,
    budget: float = math.inf,
    progress: Callable[[int], None] | None = None,
) -> StagePlan:
    """Find the cheapest stages, by the dynamic program of IOS over measured costs.

    Instead of measuring every stage first, it searches with hopeful estimates, measures the stages of the best
    schedule, and repeats until all of them are measured. Where no stage takes less than its estimate's hopeful share,
    that is the cheapest schedule of all.

    Args:
        operators: what to place.
        oracle: gives costs.
        workers: most groups of a stage.
        budget: seconds; then the best schedule of what is known is taken.
        progress: called with the number of stages measured.

    Source: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021).
    """
    began = time.perf_counter()
    stages: list[Stage] = []
    states = transitions = requests = 0
    complete = True
    for numbers in operators.segments:
        graph = operators.graph.part(numbers)
        size = _part_size(graph, workers)
        share = _HOPE
        while True:

            def ask(batch: StageBatch, share: float = share, numbers: tuple[int, ...] = numbers) -> NDArray[np.float64]:
                named = StageBatch([_renumbered(stage, numbers) for stage in batch], len(operators.graph))
                return np.asarray(_believed(oracle, share)(named))

            found = search(graph, ask, R, workers, oracle.strategies, max_part_size=size)
            chosen = [oracle.plain(_renumbered(stage, numbers)) for stage in found.stages]
            unknown = [stage for stage in chosen if oracle.cost(stage) is None]
            late = time.perf_counter() - began > budget
            if not unknown or (late and share == 1.0):
                break
            if late:
                share, complete = 1.0, False
                continue
            for stage in unknown:
                oracle.measure(stage)
            if progress is not None:
                progress(len(oracle.known))
        stages += chosen
        states, transitions, requests = (
            states + found.states,
            transitions + found.transitions,
            requests + found.requests,
        )
    costs = tuple(oracle.measure(stage) for stage in stages)
    return StagePlan(
        Schedule(tuple(stages), costs, states, transitions, requests),
        tuple(oracle.code(stage) for stage in stages),
        complete,
        len(oracle.known),
        time.perf_counter() - began,
    )


def _renumbered(stage: Stage, numbers: Sequence[int]) -> Stage:
    return Stage(tuple(tuple(numbers[i] for i in group) for group in stage.groups), stage.strategy)


def _part_size(graph: OperatorGraph, workers: int) -> int:
    """The most operators of a part that can be searched in moments."""
    size = _MOST_PART
    while size > _FEWEST_PART:
        try:
            for numbers in partition(graph, size):
                count(graph.part(numbers), R, workers, transition_limit=_MOST_TRANSITIONS)
        except GraphError:
            size //= 2
            continue
        break
    return size
