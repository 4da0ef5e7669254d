"""Schedules without barriers, and what no schedule can be shorter than."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taut.compile.interop._graph import OperatorGraph
from taut.compile.interop._native import _schedule
from taut.errors import ArgumentError, GraphError

MOST_WORKERS = 64


@dataclass(frozen=True)
class Bound:
    """What no schedule can be shorter than.

    Attributes:
        critical_path: seconds of the longest chain, each operator on its best number of workers.
        work_by_workers: seconds × workers of all operators at their most economical, over the workers.
    """

    critical_path: float
    work_by_workers: float

    @property
    def seconds(self) -> float:
        """The larger of the two."""
        return max(self.critical_path, self.work_by_workers)

    def gap(self, seconds: float) -> float:
        """How much longer `seconds` is than the bound, as a fraction of it."""
        return seconds / self.seconds - 1 if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Slot:
    """One operator on the timeline: its number, seconds from the start, and the workers that it takes."""

    operator: int
    start: float
    end: float
    workers: tuple[int, ...]


@dataclass(frozen=True)
class Timeline:
    """A schedule without barriers: an operator starts when its predecessors have ended and its workers are free.

    Attributes:
        slots: by start, then by operator.
        seconds: the end of the last.
        bound: what no schedule can be shorter than.
        optimal: whether no shorter one exists.
    """

    slots: tuple[Slot, ...]
    seconds: float
    bound: Bound
    optimal: bool

    @property
    def gap(self) -> float:
        """How much longer it is than its bound, as a fraction of the bound."""
        return self.bound.gap(self.seconds)


def lower_bound(graph: OperatorGraph, durations: ArrayLike) -> Bound:
    """The bound max(critical path, work / workers).

    Args:
        graph: the operators.
        durations: seconds of each operator on 1, 2, ... workers, (operators, workers); infinite where impossible.

    Raises:
        ArgumentError: `durations` does not fit the graph, or an operator has no finite duration.
    """
    table = _checked(graph, durations)
    tails = np.zeros(len(graph))
    shortest = table.min(axis=1)
    for number in reversed(graph.order):
        behind = max((tails[consumer] for consumer in graph.successors[number]), default=0.0)
        tails[number] = shortest[number] + behind
    work = (table * np.arange(1, table.shape[1] + 1)).min(axis=1).sum()
    return Bound(float(tails.max(initial=0)), float(work) / table.shape[1])


def list_schedule(graph: OperatorGraph, durations: ArrayLike) -> Timeline:
    """The best of several list schedules, the operators on the longest ways first.

    Args:
        graph: the operators.
        durations: seconds of each operator on 1, 2, ... workers, (operators, workers); infinite where impossible.

    Raises:
        ArgumentError: `durations` does not fit the graph, or an operator has no finite duration.
    """
    table = _checked(graph, durations)
    placements, seconds = _schedule.list_plan(len(graph), graph.edges, table.shape[1], table.ravel().tolist())
    bound = lower_bound(graph, table)
    return Timeline(_slots(placements, table), seconds, bound, seconds <= bound.seconds)


def exact_schedule(graph: OperatorGraph, durations: ArrayLike, *, node_limit: int = 5_000_000) -> Timeline:
    """The shortest schedule, by branch and bound; the best found, not `optimal`, if the limit is reached before.

    Args:
        graph: at most 64 operators.
        durations: seconds of each operator on 1, 2, ... workers, (operators, workers); infinite where impossible.
        node_limit: most nodes to visit.

    Raises:
        ArgumentError: `durations` does not fit the graph, or an operator has no finite duration.
        GraphError: the graph has more than 64 operators.
    """
    table = _checked(graph, durations)
    if len(graph) > _schedule.most_exact_operators:
        raise GraphError(
            f"the graph has {len(graph)} operators",
            expected=f"at most {_schedule.most_exact_operators} for an exact schedule",
            fix="schedule its parts one by one, or use list_schedule",
        )
    if node_limit < 1:
        raise ArgumentError("node_limit", node_limit, expected="a positive number")
    (placements, seconds), optimal, _ = _schedule.exact_plan(
        len(graph), graph.edges, table.shape[1], table.ravel().tolist(), node_limit
    )
    return Timeline(_slots(placements, table), seconds, lower_bound(graph, table), optimal)


def _checked(graph: OperatorGraph, durations: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(durations, np.float64)
    if table.ndim != 2 or len(table) != len(graph) or not 1 <= table.shape[1] <= MOST_WORKERS:
        raise ArgumentError(
            "durations",
            f"shape {table.shape}",
            expected=f"({len(graph)}, workers) with 1 to {MOST_WORKERS} workers",
        )
    if np.isnan(table).any() or (table < 0).any() or not np.isfinite(table).any(axis=1).all():
        number = int(np.argmin((table >= 0).all(axis=1) & np.isfinite(table).any(axis=1)))
        raise ArgumentError(
            "durations",
            table[number].tolist(),
            expected=f"seconds, at least one of them finite, for operator {graph.operators[number].name}",
        )
    return table


def _slots(placements: Sequence[tuple[float, int]], table: NDArray[np.float64]) -> tuple[Slot, ...]:
    """Gives workers to operators: at each start the lowest that are free."""
    free = [0.0] * table.shape[1]
    slots = []
    # What takes no time goes first, or it could find its worker taken by what starts as it ends.
    ends = [start + float(table[number, threads - 1]) for number, (start, threads) in enumerate(placements)]
    for number in sorted(range(len(placements)), key=lambda number: (placements[number][0], ends[number], number)):
        start, threads = placements[number]
        workers = [worker for worker, time in enumerate(free) if time <= start][:threads]
        for worker in workers:
            free[worker] = ends[number]
        slots.append(Slot(number, start, ends[number], tuple(workers)))
    return tuple(slots)
