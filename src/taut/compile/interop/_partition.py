"""Cutting a graph into parts that are scheduled one after another."""

from __future__ import annotations

from taut.compile.interop._graph import OperatorGraph
from taut.errors import ArgumentError


def cut_points(graph: OperatorGraph) -> list[int]:
    """The operators that come before or after every other, in order: no path leads past them."""
    ancestors = [0] * len(graph)
    for number in graph.order:
        for consumer in graph.successors[number]:
            ancestors[consumer] |= ancestors[number] | 1 << number
    return [
        number
        for number in graph.order
        if ancestors[number].bit_count() + graph.reachable[number].bit_count() == len(graph)
    ]


def partition(graph: OperatorGraph, max_part_size: int = 100) -> list[tuple[int, ...]]:
    """Cuts a graph into parts of at most `max_part_size` operators.

    As many whole blocks as fit make a part, a block being what lies between cut points with the later of them. A block
    that is too large by itself is cut along the order of its operators.

    Returns:
        The operators of each part, predecessors first; no edge leads to an earlier part.

    Raises:
        ArgumentError: `max_part_size` is not positive.
    """
    if max_part_size < 1:
        raise ArgumentError("max_part_size", max_part_size, expected="a positive number")
    ends = [graph.order.index(number) + 1 for number in cut_points(graph)]
    if not ends or ends[-1] < len(graph):
        ends.append(len(graph))
    parts: list[tuple[int, ...]] = []
    begin = 0
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is not None and following - begin <= max_part_size:
            continue
        parts += [graph.order[i : min(i + max_part_size, end)] for i in range(begin, end, max_part_size)]
        begin = end
    return parts
