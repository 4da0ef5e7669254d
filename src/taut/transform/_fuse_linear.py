"""Fuse linear layers and activations into oneDNN's operator."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taut.graph import Builder, Graph, Node, Ref, rewrite
from taut.transform._activations import Activation, following_activation
from taut.transform._base import GraphPass, Match
from taut.transform._operators import QUANTISING
from taut.transform._patterns import Layer, emit_constant, layer

_FUSED = "mkldnn._linear_pointwise.default"


class FuseLinear(GraphPass):
    """`act(linear(x))` becomes one operator of oneDNN whose weight is reordered when loaded.

    The same arithmetic in the same precision: the gain is a better matrix product (ATen hands float32 to MKL, which
    leaves the wide vector units of some hosts unused), no packing of the weight in each call, and a fused activation.
    """

    name = "fuse_linear"
    title = "linear layers on oneDNN, fused with their activation, weights prepacked"
    reason = "no linear layer in float32 or bfloat16 has a constant weight"
    needs = ("mkldnn",)
    after = ("fold_batch_norm", "fold_linear_chain", "merge_parallel_linear", *QUANTISING, "bfloat16")

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Linear layers with the activation that follows."""
        matches: list[Match] = []
        for node in graph.nodes:
            found = layer(graph, node)
            if found is None or not _supported(found):
                continue
            after = following_activation(graph, node)
            nodes = (node.id,) if after is None else (node.id, after[0].id)
            act = Activation() if after is None else after[1]
            matches.append(Match(nodes, (_FUSED,), (found, act)))
        return matches

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The fused operator stands where the last node of each chain stood."""
        fusions = {match.nodes[-1]: match.details for match in matches}

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            fusion = fusions.get(node.id)
            if not isinstance(fusion, tuple):
                return None
            old = fusion[0].node
            constants = (emit_constant(builder, graph, old, 1), emit_constant(builder, graph, old, 2))
            args = (builder.map(fusion[0].input), *constants, *fusion[1].attributes)
            return builder.add(_FUSED, *args, outputs=node.type, module_path=old.module_path, source=old.source)

        return rewrite(graph, visit)


def _supported(found: Layer) -> bool:
    weight, bias = found.weight, found.bias
    return (
        found.linear
        and weight.dim() == 2
        and weight.numel() > 0
        and weight.dtype in (torch.float32, torch.bfloat16)
        and (bias is None or bias.dtype == weight.dtype)
        and found.node.type.dtype == weight.dtype
    )
