"""One graph's schedules on streams: what its operators cost, its best stages, and a schedule without barriers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taut.compile.interop import greedy, list_schedule
from taut.compile.scheduling._operators import Operators
from taut.compile.scheduling._search import StagePlan, search_stages
from taut.compile.scheduling.streams._costs import DeviceOracle
from taut.compile.scheduling.streams._model import StreamedModel
from taut.compile.scheduling.streams._operators import StreamOperators
from taut.compile.scheduling.streams._program import unstaged_program
from taut.compile.scheduling.streams._streams import Streams
from taut.graph import Graph

SEQUENTIAL, GREEDY, STAGES, LIST = "sequential", "greedy", "stages", "list"
MERGED = "merged "


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A program that may be kept, and the seconds that a replay of it should take."""

    model: StreamedModel
    predicted: float


@dataclasses.dataclass(frozen=True)
class Planned:
    """A graph with costs and its best stages.

    Attributes:
        sequential: runs one operator after the other.
        prefix: of the names of its candidates.
        streams: most groups of a stage.
        oracle: of costs.
        durations: seconds of each operator by itself, (operators,).
        plan: the best stages.
    """

    sequential: StreamedModel
    prefix: str
    streams: int
    oracle: DeviceOracle
    durations: NDArray[np.float64]
    plan: StagePlan

    @property
    def operators(self) -> StreamOperators:
        """What is placed."""
        return self.sequential.operators

    @property
    def cost(self) -> float:
        """Seconds that the stages should take."""
        return math.fsum(self.plan.schedule.costs or ())

    @property
    def table(self) -> NDArray[np.float64]:
        """Seconds of each operator on one stream, infinite on more: (operators, streams)."""
        table = np.full((len(self.durations), self.streams), np.inf)
        table[:, 0] = self.durations
        return table

    def search_again(self, merged: Mapping[frozenset[int], float], budget: float) -> StagePlan:
        """The best stages with convolutions that may be merged, by their operators and at these seconds."""
        groups = max([self.streams, *map(len, merged)])  # whatever is merged runs on one stream
        return _search(self.operators, self.oracle.with_merged(merged), groups, budget)

    def staged(self, device: Streams) -> StreamedModel:
        """The program of the stages."""
        return StreamedModel(self.operators.source, self.plan.schedule, device=device, streams=self.streams)

    def candidates(self, device: Streams) -> dict[str, Candidate]:
        """The programs that may be kept, by name; the sequential one first."""
        made = {SEQUENTIAL: Candidate(self.sequential, math.fsum(self.durations))}
        graph = self.operators.graph
        if self.streams > 1 and len(graph):
            ready = greedy(graph, lambda stages: [self.oracle.measure(stage) for stage in stages])
            listed = list_schedule(graph, self.table)
            for name, stages, predicted in (
                (GREEDY, ready, math.fsum(ready.costs or ())),
                (STAGES, self.plan.schedule, self.cost),
                (LIST, unstaged_program(graph, listed), listed.seconds),
            ):
                model = StreamedModel(self.operators.source, stages, device=device, streams=self.streams)
                made[name] = Candidate(model, predicted)
        return {self.prefix + name: candidate for name, candidate in made.items()}

    def described(self) -> list[tuple[str, tuple[tuple[str, ...], ...]]]:
        """The strategy of each stage, and the names of the operators of its groups."""
        operators = self.operators.graph.operators
        made = []
        for stage in self.plan.schedule.stages:
            groups = tuple(tuple(operators[number].name for number in group) for group in stage.groups)
            merged = self.prefix == MERGED and len(stage.operators) == 1 and "+" in groups[0][0]
            made.append(("merge" if merged else stage.strategy, groups))
        return made


def plan_streams(
    graph: Graph,
    inputs: Sequence[Any],
    device: Streams,
    streams: int,
    prefix: str,
    budget: float,
    progress: Callable[[float], None],
) -> Planned:
    """Time the operators of a graph, and find its best stages.

    Args:
        graph: with constants on the device.
        inputs: of a call, on the device.
        device: whose streams.
        streams: most groups of a stage.
        prefix: of the names of candidates.
        budget: seconds for the search.
        progress: told the share of operators that were timed.
    """
    sequential = StreamedModel(graph, device=device, streams=streams)
    oracle = DeviceOracle(sequential.executor, inputs, streams)
    count = len(sequential.operators.graph)
    durations = np.zeros(count)
    for number in range(count):
        durations[number] = oracle.alone(number)
        progress((number + 1) / count)
    plan = _search(sequential.operators, oracle, streams, budget)
    return Planned(sequential, prefix, streams, oracle, durations, plan)


def _search(operators: StreamOperators, oracle: DeviceOracle, streams: int, budget: float) -> StagePlan:
    placed = Operators(operators.graph, operators.nodes, (tuple(range(len(operators.graph))),))
    return search_stages(placed, oracle, streams, budget=budget)
