"""Summing the costs of a graph, through its control flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from taut.cost._families import runs_nothing
from taut.cost._model import Bound, Prediction
from taut.errors import ArgumentError
from taut.graph import Graph, Node, evaluate, trip_count

Leaf: TypeAlias = Callable[[Graph, Node, Mapping[str, int]], tuple[float, Bound | None]]
"""Gives the seconds and the bound of one operator at given sizes."""


def walk(
    graph: Graph, sizes: Mapping[str, int], leaf: Leaf, *, kind: Literal["modelled", "measured"], model: str
) -> Prediction:
    """A prediction from the cost of each operator.

    A region counts as often as it runs: that of a loop by its trip count, a branch by the slower side. Unknown trip
    counts and data-dependent sizes are assumed, and noted.

    Raises:
        ArgumentError: if a symbol that an input decides has no size.
    """
    walker = _Walker(leaf)
    known = walker.complete(graph, sizes)
    costs = [walker.node(graph, node, known) for node in graph.nodes]
    seconds = tuple(cost[0] for cost in costs)
    bounds: tuple[Bound | None, ...] = tuple(cost[1] for cost in costs)
    return Prediction(seconds, sum(seconds), kind, model, bounds, tuple(dict.fromkeys(walker.notes)))


@dataclasses.dataclass
class _Walker:
    leaf: Leaf
    notes: list[str] = dataclasses.field(default_factory=list)

    def complete(self, graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes with a value for every data-dependent symbol: its upper end, or 1 where there is none."""
        known = dict(sizes)
        for name, span in graph.symbols.items():
            if name in known:
                continue
            if span.backed:
                raise ArgumentError("sizes", dict(sizes), expected=f"a size for the symbol {name}")
            known[name] = span.upper if span.upper is not None else max(span.lower, 1)
            self.notes.append(f"the size {name} depends on data; taken as {known[name]}")
        return known

    def node(self, graph: Graph, node: Node, sizes: Mapping[str, int]) -> tuple[float, Bound | None]:
        if not node.regions:
            return (0.0, None) if runs_nothing(node) else self.leaf(graph, node, sizes)
        regions = [self.region(region, sizes) for region in node.regions]
        if node.op == "cond":
            self.notes.append(f"cond at node {node.id}: the slower branch is counted")
            return max(regions), None
        return sum(regions) * self.trips(graph, node, sizes), None

    def region(self, region: Graph, sizes: Mapping[str, int]) -> float:
        known = self.complete(region, sizes)
        return sum(self.node(region, node, known)[0] for node in region.nodes)

    def trips(self, graph: Graph, node: Node, sizes: Mapping[str, int]) -> int:
        """How often the regions of a loop run."""
        count = trip_count(graph, node)
        if count is None:
            self.notes.append(f"{node.op} at node {node.id}: the trip count is unknown, one pass is counted")
            return 1
        return max(evaluate(count, sizes), 0)
