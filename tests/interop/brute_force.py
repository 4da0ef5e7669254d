"""All schedules of small graphs, one after another, from the definitions alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from taut.compile.interop import STRATEGIES, OperatorGraph, Stage, Stages, Strategy

Oracle = Callable[[Stages], Sequence[float]]


def components(graph: OperatorGraph, members: frozenset[int]) -> list[set[int]]:
    """The operators connected within `members`, whichever way the edges lead."""
    found: list[set[int]] = []
    for number in sorted(members):
        near = {number} | {b for a, b in graph.edges if a == number} | {a for a, b in graph.edges if b == number}
        joined = [group for group in found if group & near]
        found = [group for group in found if not group & near] + [{number}.union(*joined)]
    return found


def stages_of(graph: OperatorGraph, members: frozenset[int], strategies: Sequence[str]) -> list[Stage]:
    """The stages of exactly these operators: each component has one operator that none of the others precedes."""
    groups = []
    for group in components(graph, members):
        heads = [number for number in group if not group & set(graph.predecessors[number])]
        if len(heads) > 1:
            return []
        groups.append(tuple(number for number in graph.order if number in group))
    keys: set[Any] = {
        number if len(members) == 1 or (one := graph.operators[number].convolution) is None else one.merge_key()
        for number in members
    }
    allowed: dict[Strategy, bool] = {
        "concurrent": True,
        "merge": len(groups) == len(members) and len(keys) == 1,
        "intra": len(groups) == 1,
    }
    return [Stage(tuple(groups), kind) for kind in STRATEGIES if kind in strategies and allowed[kind]]


def all_costs(
    graph: OperatorGraph, oracle: Oracle, r: int, s: int, strategies: Sequence[str] = STRATEGIES
) -> list[float]:
    """The cost of every schedule, each stage with its cheapest strategy."""
    everything = frozenset(range(len(graph)))
    cheapest: dict[frozenset[int], float] = {}
    for size in range(1, len(graph) + 1):
        for chosen in map(frozenset, itertools.combinations(range(len(graph)), size)):
            stages = stages_of(graph, chosen, strategies)
            if stages and len(stages[0].groups) <= s and max(map(len, stages[0].groups)) <= r:
                cheapest[chosen] = min(oracle(Stages(stages, len(graph))))
    needed = {chosen: frozenset(a for a, b in graph.edges if b in chosen) - chosen for chosen in cheapest}
    costs = []

    def extend(done: frozenset[int], cost: float) -> None:
        if done == everything:
            costs.append(cost)
            return
        for chosen, more in cheapest.items():
            if not chosen & done and needed[chosen] <= done:
                extend(done | chosen, cost + more)

    extend(frozenset(), 0.0)
    return costs


def shortest_makespan(graph: OperatorGraph, durations: Sequence[Sequence[float]]) -> float:
    """The shortest schedule without barriers: operators placed in every order, on every number of workers."""
    workers = len(durations[0])
    best = math.inf
    for order in itertools.permutations(range(len(graph))):
        place = {number: i for i, number in enumerate(order)}
        if any(place[a] > place[b] for a, b in graph.edges):
            continue
        for threads in itertools.product(range(1, workers + 1), repeat=len(graph)):
            best = min(best, _makespan(graph, durations, order, threads, workers))
    return best


def _makespan(
    graph: OperatorGraph,
    durations: Sequence[Sequence[float]],
    order: Sequence[int],
    threads: Sequence[int],
    workers: int,
) -> float:
    """Places each operator at the earliest time at which enough workers are free until its end."""
    placed: dict[int, tuple[float, float]] = {}
    for number in order:
        seconds = durations[number][threads[number] - 1]
        earliest = max((placed[before][1] for before in graph.predecessors[number]), default=0.0)
        for start in sorted({earliest, *(end for _, end in placed.values() if end > earliest)}):
            instants = {start, *(begin for begin, _ in placed.values() if start < begin < start + seconds)}
            used = (sum(threads[i] for i, (a, b) in placed.items() if a <= at < b) for at in instants)
            if max(used) + threads[number] <= workers:
                placed[number] = start, start + seconds
                break
    return max(end for _, end in placed.values())
