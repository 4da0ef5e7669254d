"""Small graphs written by hand."""

import torch

from taut.graph import Builder, Graph, TensorType


def linear_graph(rows: int, inner: int, columns: int, dtype: torch.dtype = torch.float32) -> Graph:
    """One linear layer without bias, captured by hand."""
    builder = Builder()
    x = builder.input("x", TensorType((rows, inner), dtype))
    weight = builder.constant(torch.ones(columns, inner, dtype=dtype), "weight")
    y = builder.add("aten.linear.default", x, weight, outputs=TensorType((rows, columns), dtype))
    return builder.finish(y)


def pointwise_graph(*shape: int, op: str = "aten.neg.default") -> Graph:
    """One operator with one argument."""
    builder = Builder()
    kind = TensorType(shape, torch.float32)
    return builder.finish(builder.add(op, builder.input("x", kind), outputs=kind))
