"""Arithmetic on sizes, as int64 tensors without dimensions."""

from __future__ import annotations

from typing import Any

import torch

from taut.export._registry import converts
from taut.export._values import Value
from taut.export._writer import Writer

_ARITHMETIC = {"sym.add": "Add", "sym.sub": "Sub", "sym.mul": "Mul", "sym.max": "Max", "sym.min": "Min"}
_COMPARISONS = {
    "sym.eq": "Equal",
    "sym.lt": "Less",
    "sym.le": "LessOrEqual",
    "sym.gt": "Greater",
    "sym.ge": "GreaterOrEqual",
}


@converts("sym_size.int")
def _size(w: Writer, x: Value, dimension: int) -> str:
    return w.emit("Squeeze", w.size(x, dimension), w.integers([0]))


@converts("item")
def _item(w: Writer, x: Value) -> str:
    return w.cast(w.emit("Reshape", x, w.integers([])), w.dtype(), of=x.dtype)


@converts(*_ARITHMETIC)
def _arithmetic(w: Writer, left: Any, right: Any) -> str:
    return w.emit(_ARITHMETIC[w.node.op], w.scalar(left, w.dtype()), w.scalar(right, w.dtype()))


@converts("sym.pow")
def _power(w: Writer, base: Any, exponent: Any) -> str:
    return w.emit("Pow", w.scalar(base, w.dtype()), w.scalar(exponent, w.dtype()))


@converts("sym.truediv")
def _divide(w: Writer, left: Any, right: Any) -> str:
    return w.emit("Div", w.scalar(left, torch.float64), w.scalar(right, torch.float64))


@converts("sym.mod")
def _modulo(w: Writer, left: Any, right: Any) -> str:
    return w.emit(
        "Mod", w.scalar(left, w.dtype()), w.scalar(right, w.dtype())
    )  # the sign of the divisor, like Python's


@converts("sym.floordiv")
def _floor_divide(w: Writer, left: Any, right: Any) -> str:
    left, right = w.scalar(left, w.dtype()), w.scalar(right, w.dtype())
    return w.emit("Div", w.emit("Sub", left, w.emit("Mod", left, right)), right)  # ONNX's Div rounds towards zero


@converts("sym.neg")
def _negate(w: Writer, value: Any) -> str:
    return w.emit("Neg", w.scalar(value, w.dtype()))


@converts("sym.int", "sym.float")
def _convert(w: Writer, value: Any) -> str:
    return w.scalar(value, w.dtype())


@converts("sym.floor", "sym.ceil", "sym.trunc")
def _round(w: Writer, value: Any) -> str:
    real = w.scalar(value, torch.float64)
    if w.node.op != "sym.trunc":
        real = w.emit("Floor" if w.node.op == "sym.floor" else "Ceil", real)
    return w.cast(real, torch.int64)


@converts(*_COMPARISONS)
def _compare(w: Writer, left: Any, right: Any) -> str:
    return w.emit(_COMPARISONS[w.node.op], w.scalar(left, torch.int64), w.scalar(right, torch.int64))


@converts("sym.ne")
def _differ(w: Writer, left: Any, right: Any) -> str:
    return w.emit("Not", w.emit("Equal", w.scalar(left, torch.int64), w.scalar(right, torch.int64)))


@converts("sym.and", "sym.or")
def _logical(w: Writer, left: Any, right: Any) -> str:
    return w.emit("And" if w.node.op == "sym.and" else "Or", w.scalar(left, torch.bool), w.scalar(right, torch.bool))


@converts("sym.not")
def _not(w: Writer, value: Any) -> str:
    return w.emit("Not", w.scalar(value, torch.bool))


@converts("sym.ite")
def _choose(w: Writer, condition: Any, left: Any, right: Any) -> str:
    return w.emit("Where", w.scalar(condition, torch.bool), w.scalar(left, w.dtype()), w.scalar(right, w.dtype()))
