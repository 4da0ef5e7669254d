"""The cheapest schedule, against brute force over all schedules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from brute_force import all_costs
from interop_graphs import INCEPTION, NASNET_CELL, SQUEEZENET, random_costs, random_graph

from taut.compile.interop import (
    STRATEGIES,
    CachedOracle,
    Convolution,
    Operator,
    OperatorGraph,
    Schedule,
    Stage,
    Stages,
    Strategy,
    count,
    greedy,
    lower_bound,
    search,
    sequential,
    validate,
)
from taut.errors import ArgumentError, GraphError

SUBSETS: tuple[tuple[Strategy, ...], ...] = (
    STRATEGIES,
    ("concurrent",),
    ("merge",),
    ("intra",),
    ("concurrent", "merge"),
    ("intra", "merge"),
)


def check_against_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    graph, oracle = random_graph(generator), random_costs(generator)
    r, s = (int(generator.integers(1, 5)), int(generator.integers(1, 5))) if seed % 2 else (None, None)
    strategies = SUBSETS[seed % len(SUBSETS)]
    found = search(graph, oracle, r, s, strategies)
    validate(graph, found, r, s)
    assert {stage.strategy for stage in found.stages} <= set(strategies)
    assert found.costs == tuple(oracle(Stages(found.stages, len(graph))))
    costs = all_costs(graph, oracle, r or 7, s or 7, strategies)
    assert found.cost == pytest.approx(min(costs), rel=1e-12)


def test_no_schedule_is_cheaper() -> None:
    for seed in range(500):
        check_against_brute_force(seed)


@pytest.mark.slow
def test_no_schedule_of_ten_thousand_graphs_is_cheaper() -> None:
    for seed in range(10_000):
        check_against_brute_force(1_000_000 + seed)


def test_the_oracle_is_asked_in_batches_and_once_for_each_stage() -> None:
    batches: list[list[Stage]] = []

    def oracle(stages: Stages) -> list[float]:
        batches.append(list(stages))
        return [1.0] * len(stages)

    found = search(INCEPTION, oracle, None, None)
    asked = [(frozenset(stage.operators), stage.strategy) for batch in batches for stage in batch]
    assert len(asked) == len(set(asked)) == found.requests
    assert len(batches) <= len(INCEPTION)
    assert (found.states, found.transitions) == (count(INCEPTION).states, count(INCEPTION).transitions)


def test_a_batch_as_arrays_says_the_same_as_its_stages() -> None:
    def oracle(stages: Stages) -> list[float]:
        for i, stage in enumerate(stages):
            assert set(np.flatnonzero(stages.members[i])) == set(stage.operators)
            assert set(np.flatnonzero(stages.heads[i])) == {group[0] for group in stage.groups}
            assert STRATEGIES[stages.strategies[i]] == stage.strategy
            validate_alone(NASNET_CELL, stage)
        assert stages[-1] == stages[len(stages) - 1] == stages[-1:][0]
        return [1.0] * len(stages)

    search(NASNET_CELL, oracle, 2, 2, max_part_size=7)


def validate_alone(graph: OperatorGraph, stage: Stage) -> None:
    for group in stage.groups:
        for number in group[1:]:
            assert set(graph.predecessors[number]) & set(stage.operators) <= set(group)
            assert graph.reachable[group[0]] >> number & 1


def test_merged_and_concurrent_costs_are_kept_apart() -> None:
    convolution = Convolution("x", (8, 4, 4), (4, 4), (1, 1))
    graph = OperatorGraph.from_edges(2, [], [Operator(name, "conv", convolution) for name in "ab"])

    def oracle(merged: float, together: float) -> CachedOracle:
        def cost(stage: Stage) -> float:
            if len(stage.operators) == 1:
                return 5.0
            return merged if stage.strategy == "merge" else together

        return CachedOracle(lambda stages: [cost(stage) for stage in stages])

    both: tuple[Strategy, ...] = ("concurrent", "merge")
    assert search(graph, oracle(1.0, 2.0), strategies=both).stages == (Stage(((0,), (1,)), "merge"),)
    assert search(graph, oracle(2.0, 1.0), strategies=both).stages == (Stage(((0,), (1,)), "concurrent"),)
    kept = oracle(1.0, 2.0)
    assert search(graph, kept, strategies=["concurrent"]).cost == 2.0
    assert search(graph, kept, strategies=["merge"]).cost == 1.0


def test_a_cached_oracle_asks_once() -> None:
    asked: list[Stage] = []

    def oracle(stages: Stages) -> list[float]:
        asked.extend(stages)
        return [float(len(stage.operators)) for stage in stages]

    cached = CachedOracle(oracle)
    first = search(SQUEEZENET, cached)
    assert search(SQUEEZENET, cached) == first
    assert len(asked) == len(cached.costs) == first.requests


def test_parts_follow_each_other() -> None:
    generator = np.random.default_rng(3)
    oracle = random_costs(generator)
    whole = search(NASNET_CELL, oracle, 2, 3)
    for most in (1, 3, 6, 10):
        parts = search(NASNET_CELL, oracle, 2, 3, max_part_size=most)
        validate(NASNET_CELL, parts, 2, 3)
        assert cost_of(parts) >= cost_of(whole)
        assert parts.transitions < whole.transitions


def cost_of(schedule: Schedule) -> float:
    assert schedule.cost is not None
    return schedule.cost


def test_baselines() -> None:
    generator = np.random.default_rng(4)
    for _ in range(30):
        graph, oracle = random_graph(generator), random_costs(generator)
        best = search(graph, oracle, None, None)
        for baseline in (sequential(graph, oracle), greedy(graph, oracle)):
            validate(graph, baseline)
            assert cost_of(baseline) >= cost_of(best) * (1 - 1e-12)
    oracle = random_costs(generator)
    assert [len(stage.groups) for stage in greedy(SQUEEZENET, oracle).stages] == [2, 2, 1, 1]
    assert [stage.operators for stage in sequential(SQUEEZENET, oracle).stages] == [(i,) for i in range(6)]


def test_no_schedule_of_stages_is_below_the_bound() -> None:
    generator = np.random.default_rng(7)
    for _ in range(30):
        graph = random_graph(generator, 9)
        durations = generator.uniform(0.5, 2, (len(graph), 2))
        found = search(graph, two_workers(durations), None, None)
        assert cost_of(found) >= lower_bound(graph, durations).seconds * (1 - 1e-12)


def two_workers(durations: np.ndarray) -> CachedOracle:
    """Groups on two workers, the longest first; with the strategy intra operators on both."""

    def cost(stage: Stage) -> float:
        if stage.strategy == "intra":
            return sum(durations[number, 1] for number in stage.operators)
        ends = [0.0, 0.0]
        for seconds in sorted((sum(durations[number, 0] for number in group) for group in stage.groups), reverse=True):
            ends[ends.index(min(ends))] += seconds
        return max(ends)

    return CachedOracle(lambda stages: [cost(stage) for stage in stages])


def test_an_empty_graph_has_an_empty_schedule() -> None:
    empty = OperatorGraph.from_edges(0, [])
    oracle = random_costs(np.random.default_rng(0))
    for schedule in (search(empty, oracle), sequential(empty, oracle), greedy(empty, oracle)):
        assert schedule.stages == ()
        assert schedule.cost == 0


@pytest.mark.parametrize("costs", [[1.0], [[1.0]], [float("nan")] * 3, [-1.0] * 3, [float("inf")] * 3])
def test_costs_that_are_no_costs(costs: Sequence[float]) -> None:
    with pytest.raises(ArgumentError, match="oracle"):
        search(OperatorGraph.from_edges(2, []), lambda _: costs)


def test_an_error_of_the_oracle_passes_through() -> None:
    def oracle(stages: Stages) -> list[float]:
        raise OSError("the thermometer fell off")

    with pytest.raises(OSError, match="the thermometer fell off"):
        search(SQUEEZENET, oracle)


def test_wrong_arguments() -> None:
    oracle = random_costs(np.random.default_rng(0))
    with pytest.raises(ArgumentError, match="strategies: got 'magic'"):
        search(SQUEEZENET, oracle, strategies=["magic"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="strategies"):
        search(SQUEEZENET, oracle, strategies=[])
    with pytest.raises(GraphError, match="more than 3 transitions"):
        search(SQUEEZENET, oracle, transition_limit=3)
    apart = OperatorGraph.from_edges(12, [])
    with pytest.raises(GraphError, match="more than 500 stages"):
        search(apart, oracle, r=1, s=12, state_limit=500)
    with pytest.raises(GraphError, match="more than 500 states"):
        search(apart, oracle, r=1, s=1, state_limit=500)
