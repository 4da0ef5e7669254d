"""Replace linear layers by the native int8 kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch

from taut.graph import Argument, Builder, Graph, Node, Ref, rewrite
from taut.kernels import MAX_IN_FEATURES, pack_int8_linear
from taut.transform._activations import following_activation
from taut.transform._base import GraphPass, Match
from taut.transform._patterns import LINEAR, arguments, constant_name

_FUSED = "taut.int8_linear.default"
_ADDMM = "aten.addmm.default"


@dataclasses.dataclass(frozen=True, slots=True)
class _Layer:
    """Weight (out, in), and the old arguments for input and bias."""

    node: Node
    input: Argument
    weight: torch.Tensor
    bias: Argument
    activation: str = "none"


class Int8Linear(GraphPass):
    """Linear layers run on int8 weights (a scale an output channel) and int8 activations (a scale a token, dynamic).

    A ReLU or exact GELU that is the layer's only user is fused. Options: `minimum_features`, below which (in either
    dimension of the weight) a layer stays as it is; `skip`, module paths whose layers stay, with all below them.
    """

    name = "int8_linear"
    title = "linear layers in int8"
    changes_numerics = True
    after = ("fold_batch_norm", "fold_linear_chain", "merge_parallel_linear")
    defaults: ClassVar[Mapping[str, object]] = {"minimum_features": 64, "skip": ()}
    reason = "no linear layer with a constant float32 weight is wide enough and not skipped"

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Linear layers, and addmm with a constant matrix, with the activation that follows."""
        matches: list[Match] = []
        least, skip = options["minimum_features"], options["skip"]
        assert isinstance(least, int) and isinstance(skip, (tuple, list))
        for node in graph.nodes:
            found = _linear(graph, node)
            if found is None or not least <= min(found.weight.shape) or found.weight.shape[1] > MAX_IN_FEATURES:
                continue
            if _below(node.module_path, skip):
                continue
            after = following_activation(graph, node)
            nodes = (node.id,)
            if after is not None and after[1].name in ("relu", "gelu") and after[1].algorithm in (None, "none"):
                nodes, found = (node.id, after[0].id), dataclasses.replace(found, activation=after[1].name)
            matches.append(Match(nodes, (_FUSED,), found))
        return matches

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The kernel stands where the last node of each chain stood; its packed weight runs on any ISA."""
        layers = {match.nodes[-1]: match.details for match in matches}

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            found = layers.get(node.id)
            if not isinstance(found, _Layer):
                return None
            packed, scales = pack_int8_linear(found.weight)
            index = 1 if found.node.op == LINEAR else 2
            name = constant_name(graph, found.node, index, "weight")
            return builder.add(
                _FUSED,
                builder.map(found.input),
                builder.constant(packed, f"{name}.packed"),
                builder.constant(scales, f"{name}.scales"),
                builder.map(found.bias),
                found.activation,
                outputs=node.type,
                module_path=found.node.module_path,
                source=found.node.source,
            )

        return rewrite(graph, visit)


def _linear(graph: Graph, node: Node) -> _Layer | None:
    if node.op == LINEAR:
        given = arguments(node, ("input", "weight", "bias"))
        weight, bias = graph.constant(given["weight"]), given.get("bias")
    elif node.op == _ADDMM:
        given = {"input": node.args[1], "weight": node.args[2]}
        matrix, bias = graph.constant(node.args[2]), node.args[0]
        weight = None if matrix is None or node.kwargs else matrix.t().contiguous()
    else:
        return None
    if weight is None or weight.dim() != 2 or weight.dtype != torch.float32 or not weight.numel():
        return None
    if bias is not None:
        value = graph.constant(bias)
        if value is None or value.shape != weight.shape[:1]:
            return None
    return _Layer(node, given["input"], weight, bias)


def _below(path: str, roots: tuple[object, ...] | list[object]) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in roots)
