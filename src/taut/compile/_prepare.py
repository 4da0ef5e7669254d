"""What is done to a graph before it is lowered."""

from __future__ import annotations

from taut.errors import EmptyChangeError
from taut.graph import Graph
from taut.transform import get_pass

_PASSES = ("fold_batch_norm",)


def prepare(graph: Graph) -> Graph:
    """The graph with batch normalisation folded into convolutions and linear layers."""
    for name in _PASSES:
        try:
            graph = get_pass(name).apply(graph).graph
        except EmptyChangeError:
            continue
    return graph
