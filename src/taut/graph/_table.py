"""What is decomposed, renamed or dropped between torch.export and the graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import torch

from taut.graph._types import Argument

aten = torch.ops.aten

# Compound operators without one good kernel of their own. Whatever is not listed stays as exported: linear, conv,
# scaled_dot_product_attention, layer_norm, gelu, lstm and the like keep their fused ATen kernels.
DECOMPOSED = (aten.einsum.default, aten.kron.default, aten.t.default, aten.rsub.Scalar, aten.rsub.Tensor)


def decomposition_table() -> dict[torch._ops.OperatorBase, Callable]:
    """The decompositions that capture runs, by operator."""
    known = torch.export.default_decompositions()
    return {operator: known[operator] for operator in DECOMPOSED}


# The same values whatever the memory layout of the input: a pass may change layouts without making these fail.
RENAMED = {
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten._reshape_copy.default": "aten.reshape.default",
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.new_empty.default": "aten.new_zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
    "aten._adaptive_avg_pool2d.default": "aten.adaptive_avg_pool2d.default",
    "aten._adaptive_avg_pool3d.default": "aten.adaptive_avg_pool3d.default",
    "aten._local_scalar_dense.default": "aten.item.default",
}

_IDENTITIES = frozenset(
    {
        "aten.detach.default",
        "aten.alias.default",
        "aten.lift_fresh_copy.default",
        "aten.lift_fresh.default",
        "aten.lift.default",
        "aten.resolve_conj.default",
        "aten.resolve_neg.default",
        "aten.positive.default",
    }
)
_DROPOUTS = frozenset({"aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default"})
_DROPOUTS |= {"aten.feature_alpha_dropout.default"}

DROPPED = frozenset({"aten._assert_tensor_metadata.default"})


def is_identity(op: str, args: Sequence[Argument], keywords: Sequence[str]) -> bool:
    """Whether the operator returns its first argument unchanged in an evaluation graph."""
    if op in _DROPOUTS:
        return len(args) > 2 and args[2] is False
    return op in _IDENTITIES or (op == "aten.clone.default" and not keywords)


SCALAR_NAMES: dict[object, str] = {
    operator.add: "sym.add",
    operator.sub: "sym.sub",
    operator.mul: "sym.mul",
    operator.floordiv: "sym.floordiv",
    operator.truediv: "sym.truediv",
    operator.mod: "sym.mod",
    operator.pow: "sym.pow",
    operator.neg: "sym.neg",
    operator.eq: "sym.eq",
    operator.ne: "sym.ne",
    operator.lt: "sym.lt",
    operator.le: "sym.le",
    operator.gt: "sym.gt",
    operator.ge: "sym.ge",
    operator.and_: "sym.and",
    operator.or_: "sym.or",
    torch.sym_not: "sym.not",
    torch.sym_max: "sym.max",
    torch.sym_min: "sym.min",
    torch.sym_int: "sym.int",
    torch.sym_float: "sym.float",
    torch.sym_ite: "sym.ite",
    math.floor: "sym.floor",
    math.ceil: "sym.ceil",
    math.trunc: "sym.trunc",
}
"""The operator name of a Python function on sizes."""
