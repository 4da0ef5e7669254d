"""Run the arithmetic in bfloat16, and what needs range or precision in float32."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch

from taut.graph import Argument, Builder, Graph, Node, Ref, TensorType, ValueType
from taut.transform._base import GraphPass, Match
from taut.transform._operators import BFLOAT16_FOLLOWERS, BFLOAT16_LEADERS, NORMALISATIONS, QUANTISED, QUANTISING
from taut.transform._patterns import rebuild

_FULL, _HALF = torch.float32, torch.bfloat16
_LARGEST = torch.finfo(torch.bfloat16).max
_CAST = "aten._to_copy.default"
_FULL_PARAMETERS = NORMALISATIONS | QUANTISED


class Bfloat16(GraphPass):
    """Matrix products, convolutions and attention run in bfloat16, and what follows them stays there where safe.

    From the first such operator on, element-wise work, pooling, softmax and normalisation (which ATen accumulates in
    float32, with the scale and shift kept in float32) continue in bfloat16; everything else (position tables, masks,
    exponentials, control flow, whatever asks for a dtype by name) keeps float32. Inputs and outputs keep their types.
    """

    name = "bfloat16"
    title = "arithmetic in bfloat16"
    changes_numerics = True
    needs = ("avx512_bf16",)
    after = ("fold_batch_norm", "fold_linear_chain", "merge_parallel_linear", "channels_last", *QUANTISING)
    reason = "no matrix product, convolution or attention in float32 is left"

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """The operators that lead into bfloat16."""
        return [
            Match((node.id,), (node.op,))
            for node in graph.nodes
            if node.op in BFLOAT16_LEADERS and any(_is_full(kind) for kind in node.outputs)
        ]

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """Every node gets the type its operator calls for, with casts where types meet."""
        casts: dict[tuple[Ref, torch.dtype], Ref] = {}

        def cast(old: Ref, builder: Builder, dtype: torch.dtype) -> Ref:
            new = builder.map(old)
            assert isinstance(new, Ref)
            kind = builder.value_type(new)
            if not isinstance(kind, TensorType) or kind.dtype == dtype:
                return new
            if (new, dtype) not in casts:
                constant = graph.constant(old)
                if constant is not None:
                    name = str(graph.nodes[old.node].args[1])
                    casts[new, dtype] = builder.constant(_rounded(constant, dtype), name)
                else:
                    outputs = dataclasses.replace(kind, dtype=dtype)
                    casts[new, dtype] = builder.add(_CAST, new, outputs=outputs, kwargs={"dtype": dtype})
            return casts[new, dtype]

        def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
            if node.op in ("input", "constant"):
                return None
            half = _runs_in_half(graph, node, builder)

            def convert(argument: Argument, position: int) -> Argument:
                if isinstance(argument, tuple):
                    return tuple(convert(item, position) for item in argument)
                if isinstance(argument, float) and math.isfinite(argument) and abs(argument) > _LARGEST:
                    # The lowest float32, a common mask value, would round to minus infinity.
                    return math.copysign(_LARGEST, argument)
                if not isinstance(argument, Ref) or not _is_full(graph.value_type(argument)):
                    return builder.map(argument)
                keeps = not half or (node.op in _FULL_PARAMETERS and position > 0)
                return cast(argument, builder, _FULL if keeps else _HALF)

            made = builder.add(
                node.op,
                *(convert(argument, position) for position, argument in enumerate(node.args)),
                outputs=tuple(_retyped(kind) for kind in node.outputs) if half else node.outputs,
                kwargs={name: convert(value, -1) for name, value in node.kwargs},
                regions=node.regions,
                module_path=node.module_path,
                source=node.source,
            )
            return tuple(Ref(made.node, index) for index in range(len(node.outputs)))

        def output(old: Ref, builder: Builder) -> Ref:
            kind = graph.value_type(old)
            new = builder.map(old)
            assert isinstance(new, Ref)
            return cast(old, builder, kind.dtype) if isinstance(kind, TensorType) else new

        return rebuild(graph, visit, output)


def _is_full(kind: ValueType) -> bool:
    return isinstance(kind, TensorType) and kind.dtype == _FULL


def _retyped(kind: ValueType) -> ValueType:
    return dataclasses.replace(kind, dtype=_HALF) if isinstance(kind, TensorType) and kind.dtype == _FULL else kind


def _runs_in_half(graph: Graph, node: Node, builder: Builder) -> bool:
    """Whether a node computes in bfloat16: it leads, or follows an input that is in bfloat16 already."""
    if node.op in BFLOAT16_LEADERS:
        return any(_is_full(kind) for kind in node.outputs)
    named = (*node.args, *(value for _, value in node.kwargs))
    if node.op not in BFLOAT16_FOLLOWERS or any(isinstance(item, torch.dtype) for item in named):
        return False
    news = [builder.map(ref) for ref in node.inputs if _is_full(graph.value_type(ref))]
    kinds = [builder.value_type(new) for new in news if isinstance(new, Ref)]
    return any(isinstance(kind, TensorType) and kind.dtype == _HALF for kind in kinds)


def _rounded(constant: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The constant in the other type; finite values stay finite."""
    rounded = constant.to(dtype)
    lost = torch.isinf(rounded) & torch.isfinite(constant)
    return torch.where(lost, torch.full_like(rounded, _LARGEST).copysign(rounded), rounded) if lost.any() else rounded
