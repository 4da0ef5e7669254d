"""Sums and other reductions, softmax and cumulative sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Operand, Writer

_REDUCTIONS = {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin",
               "logsumexp": "ReduceLogSumExp"}  # fmt: skip


def reduce(w: Writer, op: str, x: Operand, axes: Sequence[int] | None, keep: bool) -> str:
    """A reduction over some axes, or over all."""
    return w.emit(op, x, None if axes is None else w.integers(axes), keepdims=int(keep))


def _axes(x: Value, dimensions: Any) -> list[int] | None:
    if dimensions is None or (isinstance(dimensions, (tuple, list)) and not dimensions):
        return None
    return [x.axis(axis) for axis in ([dimensions] if isinstance(dimensions, int) else dimensions)]


@converts("sum", "sum.dim_IntList", "mean", "mean.dim", "amax", "amin", "logsumexp")
def _reduce(w: Writer, x: Value, dimensions: Any = None, keep: Any = False, dtype: object = None) -> str:
    name = w.node.op.split(".")[1]
    if w.node.op in ("aten.sum.default", "aten.mean.default"):
        dimensions, keep = None, False  # what stands there is the dtype
    return reduce(w, _REDUCTIONS[name], w.cast(x, w.dtype()), _axes(x, dimensions), keep)


@converts("max", "min")
def _extreme(w: Writer, x: Value) -> str:
    return reduce(w, "ReduceMax" if ".max." in w.node.op else "ReduceMin", x, None, keep=False)


@converts("max.dim", "min.dim")
def _extreme_with_index(w: Writer, x: Value, dimension: int, keep: bool) -> tuple[str, str]:
    name = "Max" if ".max." in w.node.op else "Min"
    index = w.emit(f"Arg{name}", x, axis=x.axis(dimension), keepdims=int(keep))
    return reduce(w, f"Reduce{name}", x, [x.axis(dimension)], keep), index


@converts("any", "any.dim", "any.dims", "all", "all.dim", "all.dims")
def _any(w: Writer, x: Value, dimensions: Any = None, keep: bool = False) -> str:
    truth = w.cast(w.cast(x, torch.bool), torch.int32)
    op = "ReduceMax" if ".any." in w.node.op else "ReduceMin"
    return w.cast(reduce(w, op, truth, _axes(x, dimensions), keep), torch.bool)


@converts("argmax", "argmin")
def _position(w: Writer, x: Value, dimension: int | None, keep: bool) -> str:
    op = "ArgMax" if "argmax" in w.node.op else "ArgMin"
    if dimension is not None:
        return w.emit(op, x, axis=x.axis(dimension), keepdims=int(keep))
    if keep:
        unsupported(w.node, "the position in the flattened tensor cannot keep the dimensions")
    return w.emit(op, w.emit("Reshape", x, w.integers([-1])), axis=0, keepdims=0)


@converts("linalg_vector_norm", "norm.ScalarOpt_dim", "norm.Scalar")
def _norm(w: Writer, x: Value, order: Any, dimensions: Any = None, keep: bool = False, dtype: object = None) -> str:
    order = 2.0 if order is None else float(order)
    source, axes = w.cast(x, w.dtype()), _axes(x, dimensions)
    if order in (1.0, 2.0):
        return reduce(w, "ReduceL1" if order == 1 else "ReduceL2", source, axes, keep)
    magnitude = w.emit("Abs", source)
    if math.isinf(order):
        return reduce(w, "ReduceMax" if order > 0 else "ReduceMin", magnitude, axes, keep)
    powers = w.emit("Pow", magnitude, w.number(order, w.dtype()))
    return w.emit("Pow", reduce(w, "ReduceSum", powers, axes, keep), w.number(1 / order, w.dtype()))


@converts("var.correction", "std.correction")
def _variance(w: Writer, x: Value, dimensions: Any, correction: Any, keep: bool) -> str:
    axes = _axes(x, dimensions) or list(range(x.rank))
    if not all(isinstance(x.shape[axis], int) for axis in axes):
        unsupported(w.node, "the number of samples depends on the input", fix="reduce dimensions of fixed size")
    count = math.prod(int(x.shape[axis]) for axis in axes)  # pyright: ignore[reportArgumentType]
    centred = w.emit("Sub", x, reduce(w, "ReduceMean", x, axes, keep=True))
    total = reduce(w, "ReduceSum", w.emit("Mul", centred, centred), axes, keep)
    variance = w.emit("Div", total, w.number(float(count - (1 if correction is None else correction)), w.dtype()))
    return w.emit("Sqrt", variance) if ".std." in w.node.op else variance


@converts("softmax.int", "_softmax", "log_softmax.int", "_log_softmax")
def _softmax(w: Writer, x: Value, dimension: int, dtype: object = None) -> str:
    op = "LogSoftmax" if "log_softmax" in w.node.op else "Softmax"
    return w.emit(op, w.cast(x, w.dtype()), axis=x.axis(dimension))


@converts("cumsum")
def _cumulative_sum(w: Writer, x: Value, dimension: int, dtype: object = None) -> str:
    return w.emit("CumSum", w.cast(x, w.dtype()), w.number(x.axis(dimension), torch.int64))


@converts("topk")
def _top(w: Writer, x: Value, count: Any, dimension: int, largest: bool, ordered: bool) -> tuple[str, ...]:
    return w.emit_several(
        "TopK", (x, w.sizes([count])), 2, axis=x.axis(dimension), largest=int(largest), sorted=int(ordered)
    )


@converts("sort", "argsort")
def _sort(w: Writer, x: Value, dimension: int, descending: bool) -> tuple[str, ...] | str:
    inputs = (x, w.size(x, dimension))
    sorted_ = w.emit_several("TopK", inputs, 2, axis=x.axis(dimension), largest=int(descending), sorted=1)
    return sorted_[1] if "argsort" in w.node.op else sorted_
