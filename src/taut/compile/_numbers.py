"""Numbers among the arguments of a model, and numbers that a program cannot hold."""

from __future__ import annotations

from taut.compile._dims import plain
from taut.errors import GraphError
from taut.graph import Dim, Node, ScalarType, symbol


def scalar_input(node: Node, kind: ScalarType) -> Dim:
    """What is known of an argument that is a number: a symbol, or the value that the model was captured for."""
    if kind.kind == "float":
        raise GraphError(
            f"the model's argument {node.args[0]} is a float",
            expected="tensors and integers as arguments",
            fix="pass a tensor, or bind the number when the model is built, e.g. with a small wrapper module",
        )
    if kind.expression is None:
        return symbol(f"argument{node.id}")
    return int(bool(kind.expression)) if kind.kind == "bool" else plain(kind.expression)


def unsupported_scalar(node: Node) -> GraphError:
    """The error for a number that is read from a tensor and is no size."""
    return GraphError(
        f"the model reads a number from a tensor at {node.source or node.module_path or node.op}",
        expected="an integer used as a size or an index",
        fix="keep the number in a tensor of no dimensions",
    )
