"""Scaled dot-product attention as one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from taut.codegen import attention_recipe
from taut.compile._block import KernelStep
from taut.compile._dims import product, same
from taut.compile._kernel_operands import broadcast_to_one, operand
from taut.compile._views import View, contiguous
from taut.graph import Node, TensorType

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


def lower_attention(lowering: Lowering, node: Node) -> View | None:
    """Attention of q (B, H, T, D), k and v (B, H, S, D), whose result lies in memory as (B, T, H, D)."""
    graph = lowering.graph
    given = dict(zip(("q", "k", "v", "attn_mask", "dropout_p", "is_causal", "scale"), node.args, strict=False))
    given |= dict(node.kwargs)
    mask, causal, scale = given.get("attn_mask"), given.get("is_causal", False), given.get("scale")
    kinds = [graph.value_type(ref) for ref in node.inputs[:3]]
    if given.get("dropout_p", 0.0) not in (0, 0.0) or given.get("enable_gqa", False) or not isinstance(causal, bool):
        return None
    if any(not isinstance(kind, TensorType) or kind.dtype != torch.float32 for kind in kinds):
        return None
    if scale is not None and not isinstance(scale, (int, float)):
        return None
    if any(size == 0 for kind in kinds if isinstance(kind, TensorType) for size in kind.shape):
        return None
    rank = len(node.type.shape)
    views = [_four(_dense(lowering, lowering.tensor(ref))) for ref in node.args[:3]]
    if rank not in (3, 4) or any(view.rank != 4 for view in views):
        return None
    queries, keys, values = views
    heads, features, value_features = queries.sizes[1], queries.sizes[3], values.sizes[3]
    if not isinstance(heads, int) or not isinstance(features, int):
        return None
    if not all(same(keys.sizes[axis], queries.sizes[axis]) for axis in (0, 1)):
        return None
    if heads == 0 or features != value_features or not same(queries.sizes[0], values.sizes[0]):
        return None
    inputs = [queries, keys, values]
    shown = None
    if mask is not None:
        given_mask = lowering.tensor(mask)
        if given_mask.dtype not in (torch.float32, torch.bool):
            return None
        whole = given_mask.expand((*queries.sizes[:3], keys.sizes[2])[4 - rank :])
        shown = _dense(lowering, broadcast_to_one(_four(whole)))
        inputs.append(shown)
    batch, length = queries.sizes[0], queries.sizes[2]
    sizes = (batch, length, heads, value_features)
    output = contiguous(lowering.new(torch.float32, product(sizes)), sizes).permute((0, 2, 1, 3))
    recipe = attention_recipe(
        heads,
        features,
        scale=None if scale is None else float(scale),
        causal=causal,
        mask=None if shown is None else operand(shown),
    )
    lowering.emit(KernelStep(recipe, tuple(inputs), (output,), lowering.label, (node.id,)))
    return output if rank == 4 else output.drop([0])


def _four(view: View) -> View:
    return view.insert(0) if view.rank == 3 else view


def _dense(lowering: Lowering, view: View) -> View:
    return view if same(view.strides[-1], 1) else lowering.copy(view, range(view.rank))
