"""Merge linear layers that read the same input, e.g. query, key and value."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taut.graph import Builder, Graph, Node, Ref, TensorType, rewrite
from taut.transform._base import GraphPass, Match
from taut.transform._patterns import LINEAR, Layer, constant_name, layer

_SPLIT = "aten.split_with_sizes.default"


class MergeParallelLinear(GraphPass):
    """Linear layers on one input become one wider layer and a split: fewer, larger matrix products."""

    name = "merge_parallel_linear"
    title = "linear layers on one input merged"
    reason = "no two linear layers with constant weights read the same value"
    after = ("fold_batch_norm", "fold_linear_chain")

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Groups of two and more layers on one input with one dtype."""
        groups: dict[tuple[Ref, torch.dtype], list[Layer]] = {}
        for node in graph.nodes:
            found = layer(graph, node)
            if found is not None and found.linear:
                groups.setdefault((found.input, found.weight.dtype), []).append(found)
        return [
            Match(tuple(item.node.id for item in group), (LINEAR, _SPLIT), tuple(group))
            for group in groups.values()
            if len(group) > 1
        ]

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The merged layer stands where the first one stood. The parts are strided; captured graphs hold no views."""
        parts: dict[int, Ref] = {}
        groups = {match.nodes[0]: match.details for match in matches}

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            group = groups.get(node.id)
            if isinstance(group, tuple):
                split = _merged(graph, builder, group)
                parts.update({item.node.id: Ref(split.node, index) for index, item in enumerate(group)})
            return parts.get(node.id)

        return rewrite(graph, visit)


def _merged(graph: Graph, builder: Builder, group: tuple[Layer, ...]) -> Ref:
    first = group[0].node
    weight = torch.cat([item.weight for item in group])
    names = "+".join(constant_name(graph, item.node, 1, "weight") for item in group)
    bias = None
    if any(item.bias is not None for item in group):
        dtype = next(item.bias.dtype for item in group if item.bias is not None)
        zeros = [torch.zeros(item.output_channels, dtype=dtype) for item in group]
        biases = [blank if item.bias is None else item.bias for item, blank in zip(group, zeros, strict=True)]
        bias = builder.constant(torch.cat(biases), f"{names}.bias")
    kind = first.type
    wide = TensorType((*kind.shape[:-1], weight.shape[0]), kind.dtype)
    source = builder.map(group[0].input)
    product = builder.add(
        LINEAR, source, builder.constant(weight, names), bias, outputs=wide, module_path=first.module_path
    )
    sizes = tuple(item.output_channels for item in group)
    outputs = tuple(item.node.type for item in group)
    last = len(kind.shape) - 1
    return builder.add(_SPLIT, product, sizes, last, outputs=outputs, module_path=first.module_path)
