"""What a graph knows before it runs."""

from __future__ import annotations

from taut.graph import Argument, Graph, Ref, ScalarType


def scalar_constant(graph: Graph, argument: Argument) -> bool | int | float | None:
    """The number behind an argument that is a literal, a fixed size or a constant tensor of one element, else None."""
    if isinstance(argument, (bool, int, float)):
        return argument
    if not isinstance(argument, Ref):
        return None
    kind = graph.value_type(argument)
    if isinstance(kind, ScalarType):
        expression = kind.expression
        if expression is None or expression.free_symbols:
            return None
        number = {"int": int, "bool": bool, "float": float}[kind.kind]
        return number(expression)  # pyright: ignore[reportArgumentType]
    tensor = graph.constant(argument)
    return tensor.item() if tensor is not None and tensor.dim() == 0 else None
