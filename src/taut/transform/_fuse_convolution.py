"""Fuse convolution, residual addition and activation into oneDNN's operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from taut.graph import Argument, Builder, Graph, Node, Ref, rewrite
from taut.transform._activations import Activation, following_activation
from taut.transform._base import GraphPass, Match
from taut.transform._layouts import settle_layouts
from taut.transform._operators import QUANTISING
from taut.transform._patterns import Layer, arguments, emit_constant, layer, only_user, tensor_type

_UNARY = "mkldnn._convolution_pointwise.default"
_BINARY = "mkldnn._convolution_pointwise.binary"


@dataclasses.dataclass(frozen=True, slots=True)
class _Fusion:
    layer: Layer
    residual: Ref | None
    activation: Activation


class FuseConvolution(GraphPass):
    """`act(conv(x))` and `relu(conv(x) + residual)` become one operator whose weight is reordered when loaded.

    Saves a pass over memory for each addition and activation, and the reorder of the weight in each call.
    """

    name = "fuse_convolution"
    title = "convolutions fused with what follows them, weights prepacked"
    reason = "no 2-d convolution in float32 or bfloat16 has a constant weight and symmetric padding"
    needs = ("mkldnn",)
    after = ("fold_batch_norm", "fold_linear_chain", "channels_last", *QUANTISING, "bfloat16")

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Convolutions with the addition and activation that follow, in topological order."""
        matches: list[Match] = []
        additions: set[int] = set()
        for node in reversed(graph.nodes):  # of two convolutions that are added, the later one takes the addition
            found = layer(graph, node)
            if found is None or not _supported(found):
                continue
            chain = [node]
            # oneDNN does not fuse an addition into a grouped convolution, and ATen's stand-in knows no bfloat16.
            residual = _residual(graph, node, additions) if found.groups == 1 else None
            if residual is not None:
                chain.append(residual[0])
                additions.add(residual[0].id)
            after = following_activation(graph, chain[-1])
            # oneDNN follows an addition with ReLU only.
            fused = after is not None and (residual is None or after[1].name == "relu")
            if after is not None and fused:
                chain.append(after[0])
            act = after[1] if after is not None and fused else Activation()
            fusion = _Fusion(found, None if residual is None else residual[1], act)
            op = _UNARY if residual is None else _BINARY
            matches.append(Match(tuple(item.id for item in chain), (op,), fusion))
        return matches[::-1]

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The fused operator stands where the last node of each chain stood."""
        fusions = {match.nodes[-1]: match.details for match in matches}

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            fusion = fusions.get(node.id)
            return _emit(graph, builder, node, fusion) if isinstance(fusion, _Fusion) else None

        return settle_layouts(rewrite(graph, visit))  # a prepacked convolution writes channels_last


def _supported(found: Layer) -> bool:
    return (
        not found.linear
        and not found.transposed
        and found.padding is not None
        and found.weight.dtype in (torch.float32, torch.bfloat16)
        and (found.bias is None or found.bias.dtype == found.weight.dtype)
        and found.weight.numel() > 0
        and found.node.type.dtype == found.weight.dtype
        and len(found.node.type.shape) == found.weight.dim() == 4
    )


def _residual(graph: Graph, node: Node, taken: set[int]) -> tuple[Node, Ref] | None:
    """The addition of another value of the same type that is the node's only user, and that value."""
    user = only_user(graph, node)
    if user is None or user.op != "aten.add.Tensor" or user.id in taken:
        return None
    given = arguments(user, ("self", "other", "alpha"))
    if given.get("alpha", 1) != 1:
        return None
    others = [item for item in (given["self"], given["other"]) if item != Ref(node.id)]
    kind = tensor_type(graph, others[0]) if len(others) == 1 else None
    if kind is None or kind.shape != node.type.shape or kind.dtype != node.type.dtype:
        return None
    other = others[0]
    return (user, other) if isinstance(other, Ref) else None


def _emit(graph: Graph, builder: Builder, last: Node, fusion: _Fusion) -> Ref:
    found = fusion.layer
    source = builder.map(found.input)
    weight, bias = emit_constant(builder, graph, found.node, 1), emit_constant(builder, graph, found.node, 2)
    window = (found.padding or (), found.stride, found.dilation, found.groups)
    attributes: tuple[Argument, ...] = fusion.activation.attributes
    if fusion.residual is None:
        op, args = _UNARY, (source, weight, bias, *window, *attributes)
    else:
        name = None if fusion.activation.name == "none" else fusion.activation.name
        args = (source, builder.map(fusion.residual), weight, bias, *window, "add", None, name, (), None)
        op = _BINARY
    return builder.add(op, *args, outputs=last.type, module_path=found.node.module_path, source=found.node.source)
