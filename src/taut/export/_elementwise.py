"""Arithmetic, comparisons, casts and activations, element by element."""

from __future__ import annotations

import math
from typing import Any

import torch

from taut.export._registry import converts, unsupported
from taut.export._values import Value, is_scalar
from taut.export._writer import Writer

_UNARY = {
    "abs": "Abs", "acos": "Acos", "asin": "Asin", "atan": "Atan", "ceil": "Ceil", "cos": "Cos", "erf": "Erf",
    "exp": "Exp", "floor": "Floor", "log": "Log", "neg": "Neg", "reciprocal": "Reciprocal", "relu": "Relu",
    "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
    "isnan": "IsNaN", "isinf": "IsInf", "logical_not": "Not", "hardswish": "HardSwish", "mish": "Mish",
}  # fmt: skip
_OF_FLOATS = frozenset(_UNARY) - {"abs", "neg", "relu", "sign", "isnan", "isinf", "logical_not", "ceil", "floor"}

_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "maximum": "Max", "minimum": "Min", "bitwise_and": "And",
    "bitwise_or": "Or", "bitwise_xor": "Xor", "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
    "__and__": "And", "__or__": "Or", "__xor__": "Xor",
}  # fmt: skip
_COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}


def activate(w: Writer, name: str, x: str, scalars: tuple[Any, ...] = (), algorithm: str | None = None) -> str:
    """An activation by oneDNN's name of it, as fused operators hold it."""
    if name == "none":
        return x
    if name == "swish":
        return w.emit("Mul", x, w.emit("Sigmoid", x))
    if name == "gelu":
        return w.emit("Gelu", x, approximate=algorithm or "none")
    if name == "leaky_relu":
        return w.emit("LeakyRelu", x, alpha=float(scalars[0]))
    if name == "hardtanh":
        return w.emit("Clip", x, w.number(float(scalars[0]), w.dtype()), w.number(float(scalars[1]), w.dtype()))
    if name == "hardsigmoid":
        return w.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    plain = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish"}.get(name)
    return w.emit(plain, x) if plain else unsupported(w.node, f"the activation {name!r} has no counterpart in ONNX")


@converts(*_UNARY)
def _unary(w: Writer, x: Value, *rest: object) -> str:
    name = w.node.op.split(".")[1]
    source = w.operand(x, w.dtype() if name in _OF_FLOATS else x.dtype)
    return w.emit(_UNARY[name], source)


@converts("round.decimals")
def _round(w: Writer, x: Value, decimals: int) -> str:
    if decimals:
        unsupported(w.node, "ONNX rounds to whole numbers only")
    return w.emit("Round", x)


@converts(*(f"{name}.{kind}" for name in ("add", "sub") for kind in ("Tensor", "Scalar")))
def _add(w: Writer, x: Value, other: Any, alpha: Any = 1) -> str:
    right = w.operand(other, w.dtype())
    if alpha != 1:
        right = w.emit("Mul", right, w.scalar(alpha, w.dtype()))
    return w.emit(_BINARY[w.node.op.split(".")[1]], w.operand(x, w.dtype()), right)


@converts("rsub.Scalar", "rsub.Tensor")
def _reverse_subtract(w: Writer, x: Value, other: Any, alpha: Any = 1) -> str:
    left = w.operand(x, w.dtype())
    if alpha != 1:
        left = w.emit("Mul", left, w.scalar(alpha, w.dtype()))
    return w.emit("Sub", w.operand(other, w.dtype()), left)


@converts("mul.Tensor", "mul.Scalar", "maximum", "minimum")
def _arithmetic(w: Writer, x: Value, other: Any) -> str:
    if w.dtype() == torch.bool:
        name = {"mul": "And", "maximum": "Or", "minimum": "And"}[w.node.op.split(".")[1]]
        return w.emit(name, w.operand(x, torch.bool), w.operand(other, torch.bool))
    return w.emit(_BINARY[w.node.op.split(".")[1]], w.operand(x, w.dtype()), w.operand(other, w.dtype()))


@converts("div.Tensor", "div.Scalar", "true_divide.Tensor")
def _divide(w: Writer, x: Value, other: Any) -> str:
    return w.emit("Div", w.operand(x, w.dtype()), w.operand(other, w.dtype()))


@converts("div.Tensor_mode", "div.Scalar_mode")
def _divide_and_round(w: Writer, x: Value, other: Any, rounding: str | None) -> str:
    if rounding == "floor":
        return _floor_divide(w, x, other)
    left, right = w.operand(x, w.dtype()), w.operand(other, w.dtype())
    quotient = w.emit("Div", left, right)
    if rounding is None or not w.dtype().is_floating_point:
        return quotient
    return w.emit("Mul", w.emit("Sign", quotient), w.emit("Floor", w.emit("Abs", quotient)))


@converts("floor_divide", "floor_divide.Scalar")
def _floor_divide(w: Writer, x: Any, other: Any) -> str:
    left, right = w.operand(x, w.dtype()), w.operand(other, w.dtype())
    if w.dtype().is_floating_point:
        return w.emit("Floor", w.emit("Div", left, right))
    return w.emit("Div", w.emit("Sub", left, w.emit("Mod", left, right)), right)  # ONNX's Div rounds towards zero


@converts("remainder.Tensor", "remainder.Scalar")
def _remainder(w: Writer, x: Any, other: Any) -> str:
    left, right = w.operand(x, w.dtype()), w.operand(other, w.dtype())
    if not w.dtype().is_floating_point:
        return w.emit("Mod", left, right)
    return w.emit("Sub", left, w.emit("Mul", w.emit("Floor", w.emit("Div", left, right)), right))


@converts("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def _power(w: Writer, x: Any, exponent: Any) -> str:
    return w.emit("Pow", w.operand(x, w.dtype()), w.operand(exponent, w.dtype()))


@converts(*(f"{name}.{kind}" for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Tensor", "Scalar")))
def _compare(w: Writer, x: Value, other: Any) -> str:
    name = w.node.op.split(".")[1]
    common = _common(x, other)
    if common == torch.bool and name not in ("eq", "ne"):
        common = torch.int32
    left, right = w.operand(x, common), w.operand(other, common)
    return w.emit("Not", w.emit("Equal", left, right)) if name == "ne" else w.emit(_COMPARISONS[name], left, right)


def _common(x: Any, other: Any) -> torch.dtype:
    def sample(item: Any) -> Any:
        if not isinstance(item, Value):
            return item
        if is_scalar(item):
            return torch.zeros((), dtype=item.dtype).item()
        return torch.empty(() if item.rank == 0 else (1,), dtype=item.dtype)

    return torch.result_type(sample(x), sample(other))


@converts(*(f"bitwise_{name}.{kind}" for name in ("and", "or", "xor") for kind in ("Tensor", "Scalar")))
@converts(*(f"__{name}__.{kind}" for name in ("and", "or", "xor") for kind in ("Tensor", "Scalar")))
def _bitwise(w: Writer, x: Any, other: Any) -> str:
    op = _BINARY[w.node.op.split(".")[1]]
    op = op if w.dtype() == torch.bool else f"Bitwise{op}"
    return w.emit(op, w.operand(x, w.dtype()), w.operand(other, w.dtype()))


@converts("logical_and", "logical_or", "logical_xor")
def _logical(w: Writer, x: Any, other: Any) -> str:
    return w.emit(_BINARY[w.node.op.split(".")[1]], w.operand(x, torch.bool), w.operand(other, torch.bool))


@converts("bitwise_not")
def _bitwise_not(w: Writer, x: Value) -> str:
    return w.emit("Not" if x.dtype == torch.bool else "BitwiseNot", x)


@converts("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(w: Writer, condition: Value, x: Any, other: Any) -> str:
    return w.emit("Where", w.operand(condition, torch.bool), w.operand(x, w.dtype()), w.operand(other, w.dtype()))


@converts("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(w: Writer, x: Value, mask: Value, value: Any) -> str:
    return w.emit("Where", mask, w.operand(value, w.dtype()), x)


@converts("clamp", "clamp.Tensor")
def _clamp(w: Writer, x: Value, low: Any = None, high: Any = None) -> str:
    result = w.operand(x, w.dtype())
    if low is not None:
        result = w.emit("Max", result, w.operand(low, w.dtype()))
    return result if high is None else w.emit("Min", result, w.operand(high, w.dtype()))


@converts("clamp_min", "clamp_min.Tensor")
def _clamp_min(w: Writer, x: Value, low: Any) -> str:
    return _clamp(w, x, low)


@converts("clamp_max", "clamp_max.Tensor")
def _clamp_max(w: Writer, x: Value, high: Any) -> str:
    return _clamp(w, x, None, high)


@converts("hardtanh")
def _hardtanh(w: Writer, x: Value, low: Any, high: Any) -> str:
    return _clamp(w, x, low, high)


@converts("relu6")
def _relu6(w: Writer, x: Value) -> str:
    return _clamp(w, x, 0, 6)


@converts("gelu")
def _gelu(w: Writer, x: Value, approximate: str) -> str:
    return w.emit("Gelu", x, approximate=approximate)


@converts("silu", "hardsigmoid")
def _named(w: Writer, x: Value) -> str:
    return activate(w, "swish" if "silu" in w.node.op else "hardsigmoid", w.name(x))


@converts("leaky_relu")
def _leaky_relu(w: Writer, x: Value, slope: float) -> str:
    return w.emit("LeakyRelu", x, alpha=float(slope))


@converts("prelu", "_prelu_kernel")
def _prelu(w: Writer, x: Value, slope: Value) -> str:
    if slope.rank == 1 and x.rank > 2:
        return w.emit("PRelu", x, w.emit("Unsqueeze", slope, w.integers(range(1, x.rank - 1))))
    return w.emit("PRelu", x, slope)


@converts("elu")
def _elu(w: Writer, x: Value, alpha: float, scale: float, input_scale: float) -> str:
    if scale != 1 or input_scale != 1:
        unsupported(w.node, "ONNX's Elu has no scales", fix="use torch.nn.SELU, or an ELU without scales")
    return w.emit("Elu", x, alpha=float(alpha))


@converts("selu")
def _selu(w: Writer, x: Value) -> str:
    return w.emit("Selu", x)


@converts("softplus")
def _softplus(w: Writer, x: Value, beta: float, threshold: float) -> str:
    if beta == 1:
        return w.emit("Softplus", x)
    factor = w.number(float(beta), w.dtype())
    return w.emit("Div", w.emit("Softplus", w.emit("Mul", x, factor)), factor)


@converts("log_sigmoid")
def _log_sigmoid(w: Writer, x: Value) -> str:
    return w.emit("Neg", w.emit("Softplus", w.emit("Neg", x)))


@converts("rsqrt")
def _reciprocal_root(w: Writer, x: Value) -> str:
    return w.emit("Reciprocal", w.emit("Sqrt", w.operand(x, w.dtype())))


@converts("square")
def _square(w: Writer, x: Value) -> str:
    return w.emit("Mul", x, x)


@converts("log1p")
def _log1p(w: Writer, x: Value) -> str:
    return w.emit("Log", w.emit("Add", x, w.number(1.0, w.dtype())))


@converts("expm1")
def _expm1(w: Writer, x: Value) -> str:
    return w.emit("Sub", w.emit("Exp", x), w.number(1.0, w.dtype()))


@converts("log2", "log10")
def _logarithm(w: Writer, x: Value) -> str:
    base = 2 if "log2" in w.node.op else 10
    return w.emit("Div", w.emit("Log", x), w.number(math.log(base), w.dtype()))


@converts("isfinite")
def _is_finite(w: Writer, x: Value) -> str:
    return w.emit("Not", w.emit("Or", w.emit("IsNaN", x), w.emit("IsInf", x)))


@converts("_to_copy", "to.dtype", "clone", "contiguous")
def _copy(w: Writer, x: Value, *rest: object) -> str:
    return w.cast(x, w.dtype())
