"""Schedules without barriers, against brute force and their bound."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from brute_force import shortest_makespan
from hypothesis import given, settings
from hypothesis import strategies as st
from interop_graphs import INCEPTION, NASNET_CELL, random_graph

from taut.compile.interop import OperatorGraph, Timeline, exact_schedule, list_schedule, lower_bound
from taut.errors import ArgumentError, GraphError


def check(graph: OperatorGraph, durations: np.ndarray, timeline: Timeline) -> None:
    """Operators run once, for their duration, after their predecessors, and no worker does two at once."""
    slots = {slot.operator: slot for slot in timeline.slots}
    assert sorted(slots) == list(range(len(graph))) == sorted(slot.operator for slot in timeline.slots)
    assert timeline.seconds == max((slot.end for slot in timeline.slots), default=0)
    for slot in timeline.slots:
        assert slot.start >= 0
        assert slot.end == slot.start + durations[slot.operator, len(slot.workers) - 1]
        assert len(set(slot.workers)) == len(slot.workers)
    for a, b in graph.edges:
        assert slots[a].end <= slots[b].start
    for worker in range(durations.shape[1]):
        busy = sorted((slot.start, slot.end) for slot in timeline.slots if worker in slot.workers)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(busy))
    assert timeline.seconds >= timeline.bound.seconds * (1 - 1e-12)
    assert timeline.gap >= -1e-12


def moldable(generator: np.random.Generator, size: int, workers: int) -> np.ndarray:
    """Integer durations, so that ends are equal where they should be; some operators gain from workers."""
    one = generator.integers(0, 20, (size, 1))
    return np.concatenate([one, generator.integers(0, 20, (size, workers - 1))], axis=1).astype(float)


def test_the_exact_schedule_is_the_shortest() -> None:
    generator = np.random.default_rng(1)
    for workers in (1, 2, 3):
        for _ in range(60 if workers < 3 else 20):
            graph = random_graph(generator, 4)
            durations = moldable(generator, len(graph), workers)
            exact = exact_schedule(graph, durations)
            check(graph, durations, exact)
            assert exact.optimal
            assert exact.seconds == shortest_makespan(graph, durations.tolist())


def test_with_five_operators_too() -> None:
    generator = np.random.default_rng(2)
    for _ in range(6):
        graph = random_graph(generator, 5)
        durations = moldable(generator, len(graph), 2)
        assert exact_schedule(graph, durations).seconds == shortest_makespan(graph, durations.tolist())


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_no_list_schedule_is_shorter_than_the_exact_one(seed: int, workers: int) -> None:
    generator = np.random.default_rng(seed)
    graph = random_graph(generator, 9)
    durations = generator.uniform(0, 10, (len(graph), workers))
    listed, exact = list_schedule(graph, durations), exact_schedule(graph, durations, node_limit=20_000)
    check(graph, durations, listed)
    check(graph, durations, exact)
    assert exact.seconds <= listed.seconds
    assert exact.bound == listed.bound == lower_bound(graph, durations)
    if workers == 1:
        assert exact.seconds == pytest.approx(durations.sum())


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_list_schedules_of_larger_graphs(seed: int, workers: int) -> None:
    generator = np.random.default_rng(seed)
    graph = random_graph(generator, 60)
    durations = moldable(generator, len(graph), workers)
    check(graph, durations, list_schedule(graph, durations))


def test_an_idle_worker_may_be_worth_it() -> None:
    # Starting 1 at once would delay 2, which needs both workers and has the long way behind it.
    graph = OperatorGraph.from_edges(4, [(0, 2), (2, 3)])
    durations = np.array([[1, 1], [10, 10], [math.inf, 1], [10, 10]])
    exact = exact_schedule(graph, durations)
    check(graph, durations, exact)
    assert exact.seconds == 12
    assert exact.optimal


def test_operators_that_gain_from_workers_take_them() -> None:
    chain = OperatorGraph.from_edges(3, [(0, 1), (1, 2)])
    assert list_schedule(chain, [[2, 1]] * 3).seconds == 3
    apart = OperatorGraph.from_edges(4, [])
    assert list_schedule(apart, [[2, 1.5]] * 4).seconds == 4


def test_known_bounds() -> None:
    bound = lower_bound(INCEPTION, np.full((11, 1), 2.0))
    assert (bound.critical_path, bound.work_by_workers, bound.seconds) == (8, 22, 22)
    bound = lower_bound(INCEPTION, np.full((11, 2), 2.0))
    assert (bound.critical_path, bound.work_by_workers, bound.seconds) == (8, 11, 11)
    assert bound.gap(22) == 1
    assert exact_schedule(INCEPTION, np.full((11, 2), 2.0)).seconds == 12


def test_a_cell_is_solved_exactly() -> None:
    durations = np.random.default_rng(8).uniform(1, 3, (18, 1)) * [1, 0.7]
    exact = exact_schedule(NASNET_CELL, durations)
    check(NASNET_CELL, durations, exact)
    assert exact.gap < 0.1


def test_nothing_to_do() -> None:
    empty = OperatorGraph.from_edges(0, [])
    for timeline in (list_schedule(empty, np.zeros((0, 2))), exact_schedule(empty, np.zeros((0, 2)))):
        assert (timeline.slots, timeline.seconds, timeline.gap, timeline.optimal) == ((), 0, 0, True)


@pytest.mark.parametrize(
    "durations",
    [[1.0] * 11, np.ones((10, 2)), np.ones((11, 0)), np.ones((11, 65)), -np.ones((11, 1))]
    + [np.full((11, 2), value) for value in (np.nan, np.inf)],
)
def test_durations_that_are_none(durations: np.ndarray) -> None:
    for call in (lower_bound, list_schedule, exact_schedule):
        with pytest.raises(ArgumentError, match="durations"):
            call(INCEPTION, durations)


def test_exact_schedules_have_limits() -> None:
    with pytest.raises(GraphError, match="65 operators"):
        exact_schedule(OperatorGraph.from_edges(65, []), np.ones((65, 2)))
    with pytest.raises(ArgumentError, match="node_limit"):
        exact_schedule(INCEPTION, np.ones((11, 2)), node_limit=0)
    hard = np.random.default_rng(9).uniform(1, 2, (40, 3))
    stopped = exact_schedule(OperatorGraph.from_edges(40, []), hard, node_limit=50)
    assert not stopped.optimal
