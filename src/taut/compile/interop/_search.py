"""The cheapest schedule, and two simple ones to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from taut.compile.interop._count import STATE_LIMIT, TRANSITION_LIMIT, group_limits
from taut.compile.interop._graph import OperatorGraph
from taut.compile.interop._native import _schedule
from taut.compile.interop._oracle import Oracle, PackedStages, Stages, ask
from taut.compile.interop._partition import partition
from taut.compile.interop._types import STRATEGIES, Schedule, Stage, Strategy
from taut.errors import ArgumentError


def search(
    graph: OperatorGraph,
    oracle: Oracle,
    r: int | None = 3,
    s: int | None = 8,
    strategies: Sequence[Strategy] = STRATEGIES,
    *,
    max_part_size: int = 100,
    state_limit: int = STATE_LIMIT,
    transition_limit: int = TRANSITION_LIMIT,
) -> Schedule:
    """Finds the cheapest sequence of stages by dynamic programming over the operators left.

    Each part of the graph (see `partition`) is searched by itself, and the schedules of the parts follow each other.
    A stage is a set of heads, each with all its successors that are left, no two of which share an operator; with the
    strategy `merge` it is a single operator, or convolutions without successors left that can become one; with
    `intra` it is one group. From: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration", MLSys 2021.

    Args:
        graph: the operators.
        oracle: gives the seconds of stages, many at once.
        r: most operators of a group, None for any number.
        s: most groups of a stage, None for any number.
        strategies: the strategies to consider.
        max_part_size: most operators of a part.
        state_limit: most states, and most different stages, at which to give up on a part.
        transition_limit: most transitions at which to give up on a part.

    Returns:
        The schedule with its costs; its counts are sums over parts.

    Raises:
        ArgumentError: an argument has a wrong value, or the oracle gave costs that are no costs.
        GraphError: a limit was reached.
    """
    numbers = [_number(strategy) for strategy in strategies]
    if not numbers:
        raise ArgumentError("strategies", strategies, expected=f"some of {', '.join(STRATEGIES)}")
    stages: list[Stage] = []
    costs: list[float] = []
    states = transitions = requests = 0
    classes = graph.merge_classes()
    for chosen in partition(graph, max_part_size):
        part = graph.part(chosen)

        def answer(
            words: int,
            operators: bytes,
            heads: bytes,
            strategies: bytes,
            part: OperatorGraph = part,
            chosen: tuple[int, ...] = chosen,
        ) -> bytes:
            batch = PackedStages(part, chosen, len(graph), words, operators, heads, strategies)
            return ask(oracle, batch).tobytes()

        found, *more = _schedule.search(
            len(part),
            part.edges,
            *group_limits(part, r, s),
            [classes[number] for number in chosen],
            numbers,
            state_limit,
            transition_limit,
            answer,
        )
        for operators, heads, strategy, cost in found:
            groups = [tuple(chosen[i] for i in operators if part.reachable[head] >> i & 1) for head in heads]
            stages.append(Stage(tuple(groups), STRATEGIES[strategy]))
            costs.append(cost)
        states, transitions, requests = states + more[0], transitions + more[1], requests + more[2]
    return Schedule(tuple(stages), tuple(costs), states, transitions, requests)


def sequential(graph: OperatorGraph, oracle: Oracle, strategies: Sequence[Strategy] = STRATEGIES) -> Schedule:
    """One operator after another, each with the cheapest of the strategies; raises what `search` raises."""
    kinds: list[Strategy] = [STRATEGIES[_number(strategy)] for strategy in strategies]
    stages = [[Stage(((number,),), kind) for kind in kinds] for number in graph.order]
    flat = [stage for choices in stages for stage in choices]
    costs = [float(cost) for cost in ask(oracle, Stages(flat, len(graph)))] if flat else []
    best = [min(range(i, i + len(kinds)), key=costs.__getitem__) for i in range(0, len(flat), len(kinds))]
    return Schedule(tuple(flat[i] for i in best), tuple(costs[i] for i in best), requests=len(flat))


def greedy(graph: OperatorGraph, oracle: Oracle) -> Schedule:
    """In each stage every operator whose predecessors have run, each a group; raises what `search` raises."""
    waiting = [len(before) for before in graph.predecessors]
    ready = [number for number, count in enumerate(waiting) if count == 0]
    stages = []
    while ready:
        stages.append(Stage(tuple((number,) for number in ready)))
        following = []
        for number in ready:
            for consumer in graph.successors[number]:
                waiting[consumer] -= 1
                if waiting[consumer] == 0:
                    following.append(consumer)
        ready = sorted(following)
    costs = tuple(float(cost) for cost in ask(oracle, Stages(stages, len(graph)))) if stages else ()
    return Schedule(tuple(stages), costs, requests=len(stages))


def _number(strategy: str) -> int:
    if strategy not in STRATEGIES:
        raise ArgumentError("strategies", strategy, expected=f"some of {', '.join(STRATEGIES)}")
    return STRATEGIES.index(strategy)
