"""Which operators may stand in a graph; the gate for graphs that come from files."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from taut.errors import GraphError
from taut.graph._onednn import FUSED_OPERATORS

STRUCTURAL = frozenset({"input", "constant", "check"})
CONTROL_FLOW = frozenset({"cond", "while_loop", "scan", "associative_scan", "map", "invoke_subgraph"})

SCALAR_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sym.add": operator.add,
    "sym.sub": operator.sub,
    "sym.mul": operator.mul,
    "sym.floordiv": operator.floordiv,
    "sym.truediv": operator.truediv,
    "sym.mod": operator.mod,
    "sym.pow": operator.pow,
    "sym.neg": operator.neg,
    "sym.eq": operator.eq,
    "sym.ne": operator.ne,
    "sym.lt": operator.lt,
    "sym.le": operator.le,
    "sym.gt": operator.gt,
    "sym.ge": operator.ge,
    "sym.and": operator.and_,
    "sym.or": operator.or_,
    "sym.not": torch.sym_not,
    "sym.max": max,
    "sym.min": min,
    "sym.int": int,
    "sym.float": float,
    "sym.ite": lambda condition, a, b: a if condition else b,
    "sym.floor": math.floor,
    "sym.ceil": math.ceil,
    "sym.trunc": math.trunc,
}
"""Arithmetic on sizes, by operator name."""

_PRIVATE = frozenset({"_native_batch_norm_legit_no_training", "_softmax", "_log_softmax", "_to_copy"})
_PRIVATE |= {"_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_trilinear", "_assert_async", "_pdist_forward"}
_PRIVATE |= {"_cdist_forward", "_fft_r2c", "_fft_c2r", "_fft_c2c", "_embedding_bag", "_weight_norm_interface"}
_PRIVATE |= {"_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_int_mm", "_unique2", "_local_scalar_dense"}
_PRIVATE |= {"__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "_prelu_kernel", "_weight_norm"}

# raw storage, files, uninitialised memory, foreign back ends, debugging
_DENIED = re.compile(
    r"from_file|set|set_data|data|resize.*|as_strided.*|empty.*|new_empty.*|record_stream|is_pinned|pin_memory"
    r"|storage_offset|sym_storage_offset|backward|requires_grad.*|retain_grad|output_nr|_version|warn"
    r"|(cudnn|miopen|mkldnn|mps|fbgemm|quantized|q_|sspaddmm|to_mkldnn|to_dense|sparse|copy_sparse|print|rename|"
    r"refine_names|align_|fake_quantize|choose_qparams|dequantize|qscheme|int_repr|cuda|batch_norm_backward).*"
)
_NAME = re.compile(r"(aten|taut|mkldnn)\.([A-Za-z_][A-Za-z0-9_]{0,80})\.([A-Za-z_][A-Za-z0-9_]{0,80})")


@functools.cache
def resolve(op: str) -> torch._ops.OpOverload:
    """The torch operator of that name, if a graph may hold it.

    Args:
        op: "aten.<name>.<overload>", or "taut.<name>.<overload>" for an operator of `taut.kernels` or `taut.numerics`.

    Raises:
        GraphError: if the operator is unknown, writes to its inputs, or touches files or raw storage.
    """
    match = _NAME.fullmatch(op)
    if match is None:
        raise GraphError(f"unknown operator {op[:100]!r}", expected="aten.<name>.<overload> or taut.<name>.<overload>")
    namespace, name, overload = match.groups()
    private = name.startswith("_") and name not in _PRIVATE
    if namespace == "taut":
        import taut.kernels
        import taut.numerics  # noqa: F401 - registers the operators
    elif op not in FUSED_OPERATORS and (namespace == "mkldnn" or private or _DENIED.fullmatch(name)):
        raise GraphError(f"operator {op} may not stand in a graph", expected="a functional ATen operator")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except AttributeError:
        raise GraphError(f"operator {op} is not known to this build of torch") from None
    if not isinstance(found, torch._ops.OpOverload):
        raise GraphError(f"{op} names no operator overload")
    if found._schema.is_mutable:
        raise GraphError(f"operator {op} writes to its inputs", expected="a functional ATen operator")
    return found


def is_torch_operator(op: str) -> bool:
    """Whether the name is one of a torch operator rather than structure, control flow or scalar arithmetic."""
    return op.startswith(("aten.", "taut.", "mkldnn."))


@functools.cache
def returns_sequence(op: str) -> bool:
    """Whether a torch operator returns a sequence of values rather than a single one."""
    returns = resolve(op)._schema.returns
    return len(returns) != 1 or isinstance(returns[0].type, torch.ListType)
