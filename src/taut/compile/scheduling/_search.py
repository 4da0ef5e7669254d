"""The cheapest stages by measured costs, most of which need not be measured."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_FEWEST_TRANSITIONS, _MOST_TRANSITIONS, _TRANSITIONS_A_SECOND = 100_000, 3_000_000, 100_000
"""Of a part of the graph: by the budget, since a part is searched again whenever stages of it were measured."""
_MOST_PART, _FEWEST_PART = 100, 8
_NEVER = 1e6
"""Seconds that a merged stage counts that was not priced."""
_HOPE = 0.9
"""What share of its estimate a stage that was not measured may take: estimates add up steps that ran alone."""


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Stages that a search found.

    Attributes:
        schedule: over operators, with what each stage was measured to take, or else its estimate.
        estimated: whether that is an estimate, for each stage.
        code: for each stage of the schedule the stages of the program that make it up.
        complete: whether every stage that could have been cheaper was measured.
        measured: how many stages were.
        seconds: that the search took.
    """

    schedule: Schedule
    estimated: tuple[bool, ...]
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

    def wanted(self, stage: Stage) -> bool:
        """Whether a stage might be measured that is not."""
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
        assumed: set[Stage] | None = None,
    ) -> None:
        self._operators = operators
        self._costs = costs
        self._split = split
        self._merged = merged
        self._alone = np.array([sum(durations[step] for step in own) for own in operators.steps])
        self._shared = np.array([sum(split.get(step, durations[step]) for step in own) for own in operators.steps])
        self.known: dict[Stage, float] = {} if known is None else known
        self._assumed: set[Stage] = set() if assumed is None else assumed

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
        """Seconds of a stage, measured when it is first asked for; an estimate where other processes disturb that."""
        known = self.cost(stage)
        if known is None and stage not in self._assumed:
            known = self._costs.stages(self.code(stage))
            if known is None:
                self._assumed.add(stage)
            else:
                self.known[stage] = known
        return self.estimate(stage) if known is None else known

    def wanted(self, stage: Stage) -> bool:
        """Whether a stage might be measured that is not."""
        return self.cost(stage) is None and stage not in self._assumed

    def cost(self, stage: Stage) -> float | None:
        """Seconds of a stage that was measured."""
        if stage.strategy == "merge" and len(stage.groups) > 1:
            return self._merged.get(frozenset(stage.operators))
        return self.known.get(stage)

    def estimate(self, stage: Stage) -> float:
        """What a stage would take if its steps took as long as alone."""
        if stage.strategy == "merge" and len(stage.groups) > 1:
            return _NEVER
        if stage.strategy == "intra":
            return float(self._shared[list(stage.operators)].sum())
        loads = [0.0] * self._costs.workers
        for position, group in enumerate(stage.groups):
            loads[position % len(loads)] += float(self._alone[list(group)].sum())
        return max(loads)


def _believed(oracle: MeasuringOracle, share: float) -> Oracle:
    """An oracle that takes `share` of its estimate for what might still be measured."""

    def believe(stage: Stage) -> float:
        stage = oracle.plain(stage)
        known = oracle.cost(stage)
        if known is None:
            return (share if oracle.wanted(stage) else 1.0) * oracle.estimate(stage)
        return known

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
        budget: seconds; then the best schedule by what is known and by estimates is taken.
        progress: called with the number of stages measured.

    Source: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021).
    """
    began = time.perf_counter()
    end = began + budget
    stages: list[Stage] = []
    states = transitions = requests = 0
    complete = True
    most = int(max(_FEWEST_TRANSITIONS, min(_MOST_TRANSITIONS, _TRANSITIONS_A_SECOND * budget)))
    for numbers in _parts(operators, workers, most):
        found, certain = _search_part(operators, numbers, oracle, workers, end, progress)
        complete &= certain
        stages += found.stages
        states, transitions = states + found.states, transitions + found.transitions
        requests += found.requests
    known = [oracle.cost(stage) for stage in stages]
    costs = [oracle.estimate(stage) if cost is None else cost for stage, cost in zip(stages, known, strict=True)]
    return StagePlan(
        Schedule(tuple(stages), tuple(costs), states, transitions, requests),
        tuple(cost is None for cost in known),
        tuple(oracle.code(stage) for stage in stages),
        complete and None not in known,
        len(oracle.known),
        time.perf_counter() - began,
    )


def _search_part(
    operators: Operators,
    numbers: tuple[int, ...],
    oracle: MeasuringOracle,
    workers: int,
    end: float,
    progress: Callable[[int], None] | None,
) -> tuple[Schedule, bool]:
    """The cheapest stages of some of the operators, under the names of what they do, and whether that is certain."""
    graph = operators.graph.part(numbers)
    while True:
        late = time.perf_counter() > end
        believe = _believed(oracle, 1.0 if late else _HOPE)

        def ask(batch: StageBatch, believe: Oracle = believe) -> NDArray[np.float64]:
            named = StageBatch([_renumbered(stage, numbers) for stage in batch], len(operators.graph))
            return np.asarray(believe(named))

        found = search(graph, ask, R, workers, oracle.strategies, max_part_size=len(graph))
        chosen = [oracle.plain(_renumbered(stage, numbers)) for stage in found.stages]
        unknown = [stage for stage in chosen if oracle.wanted(stage)]
        if not unknown or late:
            return dataclasses.replace(found, stages=tuple(chosen)), not late
        for stage in unknown:
            if time.perf_counter() > end:
                break
            oracle.measure(stage)
            if progress is not None:
                progress(len(oracle.known))


def _renumbered(stage: Stage, numbers: Sequence[int]) -> Stage:
    return Stage(tuple(tuple(numbers[i] for i in group) for group in stage.groups), stage.strategy)


def _parts(operators: Operators, workers: int, most: int) -> Iterator[tuple[int, ...]]:
    """The operators in parts that can be searched in moments, one after the other."""
    for segment in operators.segments:
        graph = operators.graph.part(segment)
        for numbers in partition(graph, _part_size(graph, workers, most)):
            yield tuple(segment[number] for number in numbers)


def _part_size(graph: OperatorGraph, workers: int, most: int) -> int:
    """The most operators of a part that has at most so many transitions."""
    size = _MOST_PART
    while size > _FEWEST_PART:
        try:
            for numbers in partition(graph, size):
                count(graph.part(numbers), R, workers, transition_limit=most)
        except GraphError:
            size //= 2
            continue
        break
    return size
