"""What a cost model is, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

from taut.graph import Graph

Bound: TypeAlias = Literal["compute", "memory", "overhead"]
"""What a modelled time consists of mostly: arithmetic, data movement, or the cost of the call itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """The time that one run of a graph takes.

    Attributes:
        seconds: one entry a node, aligned with `graph.nodes`; 0 for nodes that run nothing (inputs, constants).
            A control-flow node holds the time of its regions, times the trip count of a loop where known.
        total: seconds for the whole graph.
        kind: "modelled" or "measured"; the two never share a column unmarked.
        model: the name of the cost model.
        bounds: what bounds each node, aligned with `seconds`; None where nothing runs or the model does not say.
        notes: what had to be assumed, one sentence each, e.g. an unknown trip count.
    """

    seconds: tuple[float, ...]
    total: float
    kind: Literal["modelled", "measured"]
    model: str
    bounds: tuple[Bound | None, ...]
    notes: tuple[str, ...] = ()


class CostModel(Protocol):
    """Predicts the time of a graph on this host."""

    def predict(self, graph: Graph, sizes: Mapping[str, int], *, threads: int) -> Prediction:
        """The time of one run.

        Args:
            graph: what is run.
            sizes: a value for each symbol of the graph (see `taut.graph.bind_sizes`).
            threads: threads within one operator.
        """
        ...
