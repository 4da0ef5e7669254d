"""Matrix products and attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from taut.export._elementwise import activate
from taut.export._layout import transpose
from taut.export._reductions import reduce
from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Operand, Writer


@converts("linear")
def _linear(w: Writer, x: Value, weight: Value, bias: Value | None) -> str:
    if weight.encoded is not None:
        from taut.export._encoded import write_packed_product

        packed = write_packed_product(w, x, weight.encoded)
        if packed is not None:
            return _plus(w, packed, bias)
    return linear(w, x, weight, bias)


@converts("mkldnn._linear_pointwise.default")
def _fused_linear(
    w: Writer, x: Value, weight: Value, bias: Value | None, name: str, scalars: Any, algorithm: Any
) -> str:
    return activate(w, name, linear(w, x, weight, bias), scalars, algorithm)


def linear(w: Writer, x: Value, weight: Value, bias: Value | None) -> str:
    """`x @ weight.T + bias` for a weight `(N, K)`."""
    if x.rank == 2 and (bias is None or bias.rank == 1):
        return w.emit("Gemm", x, weight, bias, transB=1)
    return _plus(w, w.emit("MatMul", x, _transposed(w, weight)), bias)


def _transposed(w: Writer, weight: Value) -> str:
    if weight.tensor is None:
        return transpose(w, weight, 0, -1) if weight.rank > 1 else w.name(weight)
    return w.transposed(weight.tensor)


def _plus(w: Writer, product: str, bias: Operand) -> str:
    return product if bias is None else w.emit("Add", product, bias)


@converts("matmul", "mm", "bmm", "mv", "dot")
def _product(w: Writer, x: Value, other: Value) -> str:
    return w.emit("MatMul", x, other)


@converts("addmm")
def _add_product(w: Writer, bias: Value, x: Value, other: Value, beta: Any, alpha: Any) -> str:
    return w.emit("Gemm", x, other, bias, alpha=float(alpha), beta=float(beta))


@converts("baddbmm")
def _add_products(w: Writer, bias: Value, x: Value, other: Value, beta: Any, alpha: Any) -> str:
    product: Operand = w.emit("MatMul", x, other)
    if alpha != 1:
        product = w.emit("Mul", product, w.number(float(alpha), w.dtype()))
    if beta == 0:
        return w.name(product)
    scaled: Operand = bias if beta == 1 else w.emit("Mul", bias, w.number(float(beta), w.dtype()))
    return w.emit("Add", scaled, product)


@converts("scaled_dot_product_attention")
def _attention(
    w: Writer,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> str:
    """Query (..., L, E), key (..., S, E), value (..., S, V); a row whose every score is masked gives zeros."""
    if dropout:
        unsupported(w.node, "it drops attention at random", fix="capture the model in evaluation mode")
    if grouped:
        unsupported(w.node, "grouped queries have no counterpart in ONNX", fix="repeat key and value before the call")
    width = query.shape[-1]
    if scale is None and not isinstance(width, int):
        unsupported(w.node, "the width of a head depends on the input", fix="give attention an explicit scale")
    factor = float(scale) if scale is not None else 1 / math.sqrt(int(width))  # pyright: ignore[reportArgumentType]
    scores = w.emit("MatMul", w.emit("Mul", query, w.number(factor, w.dtype())), transpose(w, key))
    open_rows = None  # where at least one key may be seen; softmax alone would give NaN elsewhere
    lowest = w.number(-math.inf, w.dtype())
    if causal:
        shape = w.emit("Concat", w.size(query, -2), w.size(key, -2), axis=0)
        lower = w.emit("Trilu", w.emit("Expand", w.number(True, torch.bool), shape), upper=0)
        scores = w.emit("Where", lower, scores, lowest)
    elif mask is not None and mask.dtype == torch.bool:
        scores = w.emit("Where", mask, scores, lowest)
        seen = reduce(w, "ReduceMax", w.cast(mask, torch.int32), [mask.rank - 1], keep=True)
        open_rows = w.cast(seen, torch.bool)
    elif mask is not None:
        scores = w.emit("Add", scores, w.cast(mask, w.dtype()))
        open_rows = w.emit("Greater", reduce(w, "ReduceMax", scores, [-1], keep=True), lowest)
    weights = w.emit("Softmax", scores, axis=-1)
    if open_rows is not None:
        weights = w.emit("Where", open_rows, weights, w.number(0.0, w.dtype()))
    return w.emit("MatMul", weights, value)
