"""Collapse two linear maps with nothing between them into one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from taut.graph import Builder, Graph, Node, Ref, rewrite
from taut.transform._base import GraphPass, Match
from taut.transform._patterns import Layer, emit_layer, layer, only_user


class FoldLinearChain(GraphPass):
    """`second(first(x))` becomes one layer where that costs fewer multiply-accumulates.

    Linear on linear, and convolution pairs of which one is pointwise (1x1, stride 1, no padding). A low-rank pair,
    whose narrow middle is the saving, is left alone. Computed in float64 and rounded once.
    """

    name = "fold_linear_chain"
    title = "chained linear maps collapsed into one"
    reason = "no two linear maps follow each other directly, or each such pair is cheaper than its product"
    after = ("fold_batch_norm",)
    repeats = True

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Pairs that are cheaper as one, none sharing a layer."""
        matches: list[Match] = []
        taken: set[int] = set()
        for node in graph.nodes:
            first = layer(graph, node)
            user = only_user(graph, node) if first is not None else None
            second = None if user is None else layer(graph, user)
            if first is None or second is None or second.input != Ref(node.id) or node.id in taken:
                continue
            if _composable(first, second) and _cheaper(first, second):
                taken |= {node.id, second.node.id}
                kept = first if second.pointwise else second
                matches.append(Match((node.id, second.node.id), (kept.node.op,), (first, second)))
        return matches

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The product stands where the second layer stood."""
        pairs = {match.nodes[-1]: match.details for match in matches}

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            pair = pairs.get(node.id)
            if not isinstance(pair, tuple):
                return None
            first, second = pair
            begin = builder.map(first.input)
            assert isinstance(begin, Ref)
            kept = first if second.pointwise else second
            return emit_layer(builder, graph, kept.node, begin, *_product(first, second), like=node)

        return rewrite(graph, visit)


def _composable(first: Layer, second: Layer) -> bool:
    if first.weight.dtype != second.weight.dtype or first.linear != second.linear:
        return False
    if first.linear:
        return True
    if first.weight.dim() != second.weight.dim() or first.transposed or second.transposed:
        return False
    if first.groups != 1 or second.groups != 1:
        return False
    # Zero padding between the two is not the padding of the first's bias: without a bias zeros stay zeros.
    return second.pointwise or (first.pointwise and (first.bias is None or not any(second.padding or (1,))))


def _cheaper(first: Layer, second: Layer) -> bool:
    """Compare multiply-accumulates for each output position; a strided second layer only adds to the pair's cost."""
    kernel = math.prod((first if second.pointwise else second).weight.shape[2:])
    inputs, middle, outputs = first.weight.shape[1], first.weight.shape[0], second.weight.shape[0]
    return inputs * outputs * kernel < first.weight.numel() + middle * outputs * math.prod(second.weight.shape[2:])


def _product(first: Layer, second: Layer) -> tuple[torch.Tensor, torch.Tensor | None]:
    before, after = first.weight.double(), second.weight.double()
    summed = after.flatten(2).sum(2) if after.dim() > 2 else after  # (out, middle)
    if second.pointwise:
        weight = torch.einsum("om,mi...->oi...", after.flatten(1), before)
    else:
        weight = torch.einsum("om...,mi->oi...", after, before.flatten(1))
    bias = None if second.bias is None else second.bias.double()
    if first.bias is not None:
        shifted = summed @ first.bias.double()
        bias = shifted if bias is None else bias + shifted
    dtype = first.weight.dtype
    return weight.to(dtype), None if bias is None else bias.to(dtype)
