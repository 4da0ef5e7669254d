"""What is done to a graph before it is lowered."""

from __future__ import annotations

import torch

from taut.errors import EmptyChangeError
from taut.graph import Argument, Builder, Graph, Node, Ref, rewrite
from taut.transform import get_pass

_PASSES = ("fold_batch_norm",)
_NORM = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")


def prepare(graph: Graph) -> Graph:
    """The graph with batch normalisation folded into the layer beside it, or as a scale and a shift."""
    for name in _PASSES:
        try:
            graph = get_pass(name).apply(graph).graph
        except EmptyChangeError:
            continue
    return rewrite(graph, lambda node, builder: _scale_and_shift(graph, node, builder))


def _scale_and_shift(graph: Graph, node: Node, builder: Builder) -> Ref | None:
    """X * scale + shift for an evaluation-mode batch norm with constant statistics."""
    if node.op not in _NORM or (len(node.args) < 8 and node.op == _NORM[0]):
        return None
    weight, bias, mean, variance = (graph.constant(argument) for argument in node.args[1:5])
    epsilon = node.args[7 if node.op == _NORM[0] else 6]
    given = (node.args[1] is not None, node.args[2] is not None)
    if mean is None or variance is None or given != (weight is not None, bias is not None):
        return None
    if not isinstance(epsilon, float) or (node.op == _NORM[0] and node.args[5] is not False) or len(node.outputs) != 1:
        return None
    scale = torch.rsqrt(variance.double() + epsilon) * (1 if weight is None else weight.double())
    shift = (0 if bias is None else bias.double()) - mean.double() * scale
    kind = node.type
    shape = (-1, *(1,) * (len(kind.shape) - 2))
    x: Argument = builder.map(node.args[0])
    for op, value, suffix in (("aten.mul.Tensor", scale, "scale"), ("aten.add.Tensor", shift, "shift")):
        constant = builder.constant(value.to(kind.dtype).reshape(shape), f"{node.module_path}.{suffix}")
        x = builder.add(op, x, constant, outputs=(kind,), module_path=node.module_path, source=node.source)
    assert isinstance(x, Ref)
    return x
