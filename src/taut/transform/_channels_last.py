"""Store images and convolution weights with the channel as the fastest dimension."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taut.graph import Builder, Graph, Node, Ref, rewrite
from taut.transform._base import GraphPass, Match
from taut.transform._layouts import reorder, settle_layouts
from taut.transform._operators import aten_names
from taut.transform._patterns import CONVOLUTIONS, layer, tensor_type

_CONVOLUTIONS = CONVOLUTIONS.keys() | {"mkldnn._convolution_pointwise.default", "mkldnn._convolution_pointwise.binary"}
# Operators that hand on the memory order of an image.
_FOLLOWERS = aten_names(
    "relu relu6 hardtanh hardswish hardsigmoid silu gelu sigmoid tanh leaky_relu elu clamp neg abs exp add.Tensor"
    " sub.Tensor mul.Tensor div.Tensor add.Scalar mul.Scalar cat _to_copy max_pool2d avg_pool2d adaptive_avg_pool2d"
    " batch_norm upsample_nearest2d.vec upsample_bilinear2d.vec constant_pad_nd clone"
)


class ChannelsLast(GraphPass):
    """Convolution weights and image inputs go to channels_last, which oneDNN's kernels read without a reorder.

    Inputs that convolutions read (directly or through element-wise work) are reordered once at the entry; 4-D outputs
    come back contiguous.
    """

    name = "channels_last"
    title = "images and convolution weights in channels_last order"
    reason = "no 2-d convolution with a constant weight is left in contiguous order"
    after = ("fold_batch_norm", "fold_linear_chain")

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """The 2-d convolutions whose weights are not channels_last yet."""
        matches = []
        for node in graph.nodes:
            found = layer(graph, node)
            if found is None or found.weight.dim() != 4:
                continue
            # A weight with a single channel or position is in both orders; there only the activations change.
            if _only_contiguous(found.weight) or (_in_both_orders(found.weight) and _entries(graph, {node.id})):
                matches.append(Match((node.id,), (node.op,)))
        return matches

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """Weights reordered, entries and exits converted, layouts recorded."""
        chosen = {match.nodes[0] for match in matches}
        entries = _entries(graph, chosen)

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            if node.op == "input" and node.id in entries:
                (ref,) = builder.copy(node)
                return reorder(builder, ref, torch.channels_last)
            found = layer(graph, node) if node.id in chosen else None
            if found is not None and _only_contiguous(found.weight):
                position = next(item for item in node.inputs[1:] if graph.constant(item) is found.weight)
                name = str(graph.nodes[position.node].args[1])
                ordered = builder.constant(found.weight.contiguous(memory_format=torch.channels_last), name)
                args = (builder.map(node.args[0]), ordered, *(builder.map(argument) for argument in node.args[2:]))
                kwargs = {key: builder.map(value) for key, value in node.kwargs if key != "weight"}
                path, source = node.module_path, node.source
                return builder.add(node.op, *args, outputs=node.type, kwargs=kwargs, module_path=path, source=source)
            return None

        return settle_layouts(rewrite(graph, visit))


def _only_contiguous(weight: torch.Tensor) -> bool:
    return weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last)


def _in_both_orders(weight: torch.Tensor) -> bool:
    return weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)


def _entries(graph: Graph, chosen: set[int]) -> set[int]:
    """Ids of the 4-D inputs that reach a chosen convolution through operators that keep the memory order."""
    found: set[int] = set()
    pending = [ref.node for node in chosen for ref in graph.nodes[node].inputs[:1]]
    seen: set[int] = set()
    while pending:
        node = graph.nodes[pending.pop()]
        if node.id in seen:
            continue
        seen.add(node.id)
        kind = tensor_type(graph, Ref(node.id))
        if node.op == "input" and kind is not None and len(kind.shape) == 4:
            found.add(node.id)
        elif node.op in _FOLLOWERS:
            pending += [ref.node for ref in node.inputs]
        elif node.op in _CONVOLUTIONS:
            pending.append(node.inputs[0].node)
    return found
