"""What is done to a graph before it is lowered."""

from __future__ import annotations

import torch

from taut.compile._region_constants import constants_inside
from taut.errors import EmptyChangeError
from taut.graph import Argument, Builder, Graph, Node, Ref, rewrite
from taut.transform import get_pass

_PASSES = ("fold_batch_norm",)
_NORM = {
    "aten.batch_norm.default": ("training", "momentum", "epsilon"),
    "aten._native_batch_norm_legit_no_training.default": ("momentum", "epsilon"),
}
_MOMENTS = {
    f"aten.{name}_mean.{overload}": f"aten.{name}.correction"
    for name in ("var", "std")
    for overload in ("dim", "correction")
}


def prepare(graph: Graph) -> Graph:
    """The graph as it is lowered.

    Batch normalisation is folded into the layer beside it, or becomes a scale and a shift; a variance and a mean become
    two nodes; constants that branches and loops are given move into them.
    """
    for name in _PASSES:
        try:
            graph = get_pass(name).apply(graph).graph
        except EmptyChangeError:
            continue
    graph = rewrite(graph, lambda node, builder: _scale_and_shift(graph, node, builder))
    return constants_inside(rewrite(graph, _moments))


def _moments(node: Node, builder: Builder) -> tuple[Ref, ...] | None:
    """The two results of `var_mean` or `std_mean` as nodes of their own."""
    if node.op not in _MOMENTS:
        return None
    names = ("self", "dim", "unbiased", "keepdim") if node.op.endswith(".dim") else ("self", "dim")
    given = {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}
    spread, mean = node.outputs
    keep = given.get("keepdim", False)
    x = builder.map(node.args[0])
    freedom = int(bool(given.get("unbiased", True))) if node.op.endswith(".dim") else given.get("correction")
    kwargs = {"correction": 1 if freedom is None else freedom, "keepdim": keep}
    axes, path, source = given.get("dim"), node.module_path, node.source
    first = builder.add(_MOMENTS[node.op], x, axes, outputs=spread, kwargs=kwargs, module_path=path, source=source)
    return first, builder.add("aten.mean.dim", x, axes, keep, outputs=mean, module_path=path, source=source)


def _scale_and_shift(graph: Graph, node: Node, builder: Builder) -> Ref | None:
    """The product x * scale + shift for an evaluation-mode batch norm with constant statistics."""
    if node.op not in _NORM or len(node.outputs) != 1:
        return None
    names = ("x", "weight", "bias", "mean", "variance", *_NORM[node.op])
    given = dict(zip(names, node.args, strict=False))
    weight, bias, mean, variance = (graph.constant(given.get(name)) for name in names[1:5])
    computed = any(given.get(name) is not None and graph.constant(given.get(name)) is None for name in names[1:5])
    epsilon = given.get("epsilon")
    if computed or mean is None or variance is None or given.get("training") or not isinstance(epsilon, float):
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
