"""Linear layers and convolutions with constant weights, as quantisation sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import torch

from taut.graph import Argument, Graph, Node
from taut.transform._activations import following_activation
from taut.transform._patterns import CONVOLUTIONS, LINEAR, Layer, arguments, constant_name, layer

ADDMM = "aten.addmm.default"
_FUSABLE = ("relu", "gelu")


@dataclasses.dataclass(frozen=True, slots=True)
class QuantisableLayer:
    """A linear layer or 2-d convolution whose float32 weight, and bias if any, are constants.

    Attributes:
        kind: which of the two.
        node: the operation.
        input: the old argument that it reads.
        weight: (out, in), or (out, in, *kernel).
        name: the name of the weight's constant.
        bias: the old argument of the bias.
        last: the node whose place the layer takes: itself, or the activation that was fused.
        activation: "none", "relu" or "gelu".
        window: the view of a convolution with stride, padding and dilation; None where linear.
    """

    kind: Literal["linear", "convolution"]
    node: Node
    input: Argument
    weight: torch.Tensor
    name: str
    bias: Argument
    last: Node
    activation: str = "none"
    window: Layer | None = None

    @property
    def path(self) -> str:
        """What people call the layer: its weight's name without the last part, as a rule its module's path."""
        return layer_path(self.name)

    @property
    def nodes(self) -> tuple[int, ...]:
        """Ids of the nodes that the layer replaces."""
        return (self.node.id,) if self.last is self.node else (self.node.id, self.last.id)

    @property
    def features(self) -> int:
        """The smaller one of inputs and outputs; of a convolution, channels."""
        return min(self.weight.shape[:2])


def layer_path(weight_name: str) -> str:
    """The path of the layer that a weight belongs to; of merged layers, the paths joined by "+"."""
    return "+".join(part.removesuffix(".weight") for part in weight_name.split("+"))


def is_below(paths: Iterable[str], roots: Iterable[object]) -> bool:
    """Whether one of the paths is one of the roots, or lies below it."""
    found = [part for path in paths for part in path.split("+")]
    return any(path == root or path.startswith(f"{root}.") for path in found for root in roots)


def linear_layer(graph: Graph, node: Node) -> QuantisableLayer | None:
    """The node as a linear layer: `linear`, or `addmm` with a constant matrix; None if it is none."""
    if node.op == LINEAR:
        given = arguments(node, ("input", "weight", "bias"))
        weight, bias, index = graph.constant(given["weight"]), given.get("bias"), 1
    elif node.op == ADDMM:
        given = {"input": node.args[1]}
        matrix, bias, index = graph.constant(node.args[2]), node.args[0], 2
        weight = None if matrix is None or node.kwargs else matrix.t().contiguous()
    else:
        return None
    if weight is None or weight.dim() != 2 or weight.dtype != torch.float32 or not weight.numel():
        return None
    if bias is not None:
        value = graph.constant(bias)
        if value is None or value.shape != weight.shape[:1]:
            return None
    name = constant_name(graph, node, index, "weight")
    return _with_activation(graph, QuantisableLayer("linear", node, given["input"], weight, name, bias, node))


def convolution_layer(graph: Graph, node: Node) -> QuantisableLayer | None:
    """The node as a convolution, or None; `convolution_obstacle` says why one is left out."""
    if convolution_obstacle(graph, node) != "":
        return None
    found = layer(graph, node)
    assert found is not None
    name = constant_name(graph, node, 1, "weight")
    bias = arguments(node, CONVOLUTIONS[node.op][0]).get("bias")
    made = QuantisableLayer("convolution", node, found.input, found.weight, name, bias, node, window=found)
    return _with_activation(graph, made)


def convolution_obstacle(graph: Graph, node: Node) -> str | None:
    """What keeps a convolution from being quantised; "" where nothing does, None where the node is no convolution."""
    if node.op not in CONVOLUTIONS:
        return None
    found = layer(graph, node)
    if found is None:
        return "its weight or bias is computed at run time"
    if found.weight.dim() != 4 or found.transposed:
        return "it is transposed" if found.transposed else f"it has {found.weight.dim() - 2} spatial dimensions, not 2"
    if found.groups != 1:
        return f"it has {found.groups} groups"
    if found.padding is None:
        return "its padding is not the same on both sides"
    if found.weight.dtype != torch.float32 or (found.bias is not None and found.bias.dtype != torch.float32):
        return f"its weight is {found.weight.dtype}"
    return "" if found.weight.numel() else "its weight is empty"


def _with_activation(graph: Graph, found: QuantisableLayer) -> QuantisableLayer:
    """The layer with the ReLU or exact GELU that is its only user."""
    after = following_activation(graph, found.node)
    if after is None or after[1].name not in _FUSABLE or after[1].algorithm not in (None, "none"):
        return found
    return dataclasses.replace(found, last=after[0], activation=after[1].name)
