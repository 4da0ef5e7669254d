"""Encoded weights that float arithmetic reads: decoded once, when a graph is loaded."""

from __future__ import annotations

import torch

from taut.graph._policy import resolve
from taut.graph._types import Argument, Graph, Node

DECODE = "taut.decode.default"


def decoded_weight(graph: Graph, node: Node) -> torch.Tensor | None:
    """The result of a node that decodes constants; None for every other node.

    Args:
        graph: the graph.
        node: any node.

    Raises:
        TautError: if the constants do not fit the format or the shape.
    """
    if node.op != DECODE or node.kwargs or any(graph.constant(ref) is None for ref in node.inputs):
        return None

    def value(argument: Argument) -> object:
        if isinstance(argument, tuple):
            return [value(item) for item in argument]
        constant = graph.constant(argument)
        return argument if constant is None else constant

    with torch.inference_mode():
        return resolve(DECODE)(*map(value, node.args))
