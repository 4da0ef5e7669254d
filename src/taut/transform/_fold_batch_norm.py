"""Fold batch normalisation into the convolution or linear layer next to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from taut.graph import Builder, Graph, Node, Ref, rewrite
from taut.transform._base import GraphPass, Match
from taut.transform._patterns import Layer, arguments, emit_layer, layer, only_user, tensor_type

_NAMES = ("input", "weight", "bias", "running_mean", "running_var")
_EVALUATION = {
    "aten.batch_norm.default": (*_NAMES, "training", "momentum", "eps", "cudnn_enabled"),
    "aten._native_batch_norm_legit_no_training.default": (*_NAMES, "momentum", "eps"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Fold:
    layer: Layer
    norm: Node
    norm_first: bool


class FoldBatchNorm(GraphPass):
    """Scale and shift of an evaluation-mode batch norm become part of the neighbouring weights.

    `layer -> norm` is folded for convolutions (also grouped and transposed) and for linear layers on (N, C); `norm ->
    layer` where the layer pads nothing. The new weights are computed in float64 and rounded once.
    """

    name = "fold_batch_norm"
    title = "batch norm folded into the layer beside it"
    reason = "no evaluation-mode batch_norm stands alone beside a convolution or linear layer with constant weights"
    repeats = True

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Pairs of a layer and a norm; of two choices for one norm, the layer in front of it."""
        matches: list[Match] = []
        taken: set[int] = set()
        for norm in filter(lambda node: _statistics(graph, node) is not None, graph.nodes):
            fold = _layer_before(graph, norm) or _layer_after(graph, norm)
            if fold is None or fold.layer.node.id in taken:
                continue
            taken.add(fold.layer.node.id)
            pair = (norm.id, fold.layer.node.id) if fold.norm_first else (fold.layer.node.id, norm.id)
            matches.append(Match(pair, (fold.layer.node.op,), fold))
        return matches

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The folded layer stands where the later of the two stood."""
        folds = {match.nodes[-1]: match.details for match in matches}

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            fold = folds.get(node.id)
            if not isinstance(fold, _Fold):
                return None
            statistics = _statistics(graph, fold.norm)
            assert statistics is not None
            weight, bias = _folded(fold, *statistics)
            begin = builder.map(fold.norm.args[0] if fold.norm_first else fold.layer.input)
            assert isinstance(begin, Ref)
            return emit_layer(builder, graph, fold.layer.node, begin, weight, bias, like=node)

        return rewrite(graph, visit)


def _statistics(graph: Graph, node: Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Scale and shift of a norm, (C,) float64, or None if the node is no norm with constant statistics."""
    if node.op not in _EVALUATION:
        return None
    given = arguments(node, _EVALUATION[node.op])
    mean, variance = graph.constant(given.get("running_mean")), graph.constant(given.get("running_var"))
    epsilon = given.get("eps")
    if given.get("training") or mean is None or variance is None or not isinstance(epsilon, float):
        return None
    if len(node.outputs) > 1 and any(
        ref.node == node.id and ref.output for user in graph.users[node.id] for ref in graph.nodes[user].inputs
    ):
        return None
    scale = torch.rsqrt(variance.double() + epsilon)
    for name in ("weight", "bias"):
        if given.get(name) is not None and graph.constant(given[name]) is None:
            return None
    gamma, beta = graph.constant(given.get("weight")), graph.constant(given.get("bias"))
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    return scale, shift if beta is None else shift + beta.double()


def _layer_before(graph: Graph, norm: Node) -> _Fold | None:
    source = norm.args[0]
    if not isinstance(source, Ref):
        return None
    found = layer(graph, graph.nodes[source.node])
    if found is None or only_user(graph, found.node) is not norm or not _channels_agree(graph, found, source):
        return None
    return _Fold(found, norm, norm_first=False)


def _layer_after(graph: Graph, norm: Node) -> _Fold | None:
    user = only_user(graph, norm)
    found = None if user is None else layer(graph, user)
    if (
        found is None
        or found.input != Ref(norm.id)
        or found.transposed
        or any(found.padding or (1,) * (not found.linear))
    ):
        return None
    return _Fold(found, norm, norm_first=True) if _channels_agree(graph, found, found.input) else None


def _channels_agree(graph: Graph, found: Layer, value: Ref) -> bool:
    """Whether the norm's channels, dimension 1, are the layer's (a linear layer's are in the last dimension)."""
    kind = tensor_type(graph, value)
    rank = 2 if found.linear else found.weight.dim()
    return kind is not None and len(kind.shape) == rank and found.weight.is_floating_point()


def _folded(fold: _Fold, scale: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = fold.layer
    weight = found.weight.double()
    bias = torch.zeros(found.output_channels, dtype=torch.float64) if found.bias is None else found.bias.double()
    if fold.norm_first:
        # Output channel o of a grouped layer reads input channels [o // per_group * in, ...) only.
        per_group = found.output_channels // found.groups
        inner = (found.output_channels, -1) + (1,) * (weight.dim() - 2)
        scales = scale.reshape(found.groups, -1).repeat_interleave(per_group, 0).reshape(inner)
        shifts = shift.reshape(found.groups, -1).repeat_interleave(per_group, 0).reshape(inner)
        bias = bias + (weight * shifts).flatten(1).sum(1)
        weight = weight * scales
    else:
        bias = bias * scale + shift
        if found.transposed:
            # (in, out / groups, *kernel): output channel g * out / groups + j belongs to the inputs of group g.
            grouped = weight.unflatten(0, (found.groups, -1))
            factors = scale.reshape((found.groups, 1, -1) + (1,) * (weight.dim() - 2))
            weight = (grouped * factors).flatten(0, 1)
        else:
            weight = weight * scale.reshape((-1,) + (1,) * (weight.dim() - 1))
    layout = torch.channels_last if _is_channels_last(found.weight) else torch.contiguous_format
    return weight.to(found.weight.dtype).contiguous(memory_format=layout), bias.to(found.weight.dtype)


def _is_channels_last(weight: torch.Tensor) -> bool:
    last = torch.channels_last
    return weight.dim() == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=last)
