"""How large the search over schedules is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from taut.compile.interop._graph import OperatorGraph, bits
from taut.compile.interop._native import _schedule
from taut.errors import ArgumentError

STATE_LIMIT = 5_000_000
TRANSITION_LIMIT = 1_000_000_000


@dataclass(frozen=True)
class Counts:
    """The size of a search.

    Attributes:
        states: the non-empty sets of operators that can be left at some point.
        transitions: pairs of a state and a stage that may end it.
        schedules: sequences of stages, exactly.
    """

    states: int
    transitions: int
    schedules: int


def group_limits(graph: OperatorGraph, r: int | None, s: int | None) -> tuple[int, int]:
    """The pruning with None for no limit resolved; raises ArgumentError if a limit is not positive."""
    for name, value in (("r", r), ("s", s)):
        if value is not None and value < 1:
            raise ArgumentError(name, value, expected="a positive number, or None for no limit")
    most = max(len(graph), 1)
    return min(r or most, most), min(s or most, most)


def count(
    graph: OperatorGraph,
    r: int | None = None,
    s: int | None = None,
    *,
    state_limit: int = STATE_LIMIT,
    transition_limit: int = TRANSITION_LIMIT,
) -> Counts:
    """Counts the states, transitions and schedules of a graph.

    A stage is a set of heads, each with all its successors that are left, no two of which share an operator (Ding et
    al., "IOS: Inter-Operator Scheduler for CNN Acceleration", MLSys 2021, section 4).

    Args:
        graph: the operators, all of them one part.
        r: most operators of a group, None for any number.
        s: most groups of a stage, None for any number.
        state_limit: most states at which to give up.
        transition_limit: most transitions at which to give up.

    Raises:
        ArgumentError: `r` or `s` is not positive.
        GraphError: a limit was reached.
    """
    states, transitions, words = _schedule.count(
        len(graph), graph.edges, *group_limits(graph, r, s), state_limit, transition_limit
    )
    return Counts(states, transitions, int.from_bytes(words, "little"))


def width(graph: OperatorGraph) -> int:
    """The most operators no two of which depend on each other: operators less a maximum matching of the closure."""
    matched: dict[int, int] = {}

    def augment(start: int) -> bool:
        came_from: dict[int, int] = {}
        visited = 0
        pending = [start]
        while pending:
            left = pending.pop()
            fresh = graph.reachable[left] & ~(1 << left) & ~visited
            visited |= fresh
            for right in bits(fresh):
                came_from[right] = left
                if right in matched:
                    pending.append(matched[right])
                    continue
                while True:
                    left = came_from[right]
                    previous = next((r for r, owner in matched.items() if owner == left), None)
                    matched[right] = left
                    if previous is None:
                        return True
                    right = previous
        return False

    return len(graph) - sum(augment(number) for number in range(len(graph)))


def transition_bound(graph: OperatorGraph) -> float:
    """The bound C(n/d + 2, 2)^d on the transitions of n operators of width d (MLSys 2021, section 4.3)."""
    if len(graph) == 0:
        return 1.0
    d = width(graph)
    share = len(graph) / d + 2
    return math.prod([share * (share - 1) / 2] * d)
