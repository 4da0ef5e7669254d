"""An expression of a recipe as Halide expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import halide as hl

from taut.codegen import _math
from taut.codegen._buffers import TYPES
from taut.codegen._recipe import Expression, Operand
from taut.errors import ArgumentError

ROW_OPERATIONS = ("row_sum", "row_max", "row_min")
_Unary = Callable[[hl.Expr], hl.Expr]
_Binary = Callable[[hl.Expr, hl.Expr], hl.Expr]


def evaluate(
    expression: Expression,
    operands: Sequence[hl.Expr | None],
    *,
    accumulator: hl.Expr | None = None,
    known: Mapping[int, hl.Expr] | None = None,
) -> list[hl.Expr]:
    """The value of each entry for one element.

    Args:
        expression: see `Expression`; at least one entry.
        operands: the aligned element of each operand; None for one that the expression must not name.
        accumulator: what ("accumulator",) stands for.
        known: values of entries, by number, that are not computed here; row operations must be among them.

    Raises:
        ArgumentError: an entry is not part of the language, or names what is not there.
    """
    values: list[hl.Expr] = []
    for number, entry in enumerate(expression):
        name, *arguments = entry
        if known is not None and number in known:
            values.append(known[number])
        elif name == "div" and _sums_exponentials(expression, arguments[1]):
            # Softmax: the sum is the same along the row and neither tiny nor huge, so one division is enough.
            values.append(values[arguments[0]] * (hl.f32(1.0) / values[arguments[1]]))
        else:
            values.append(_entry(entry, name, arguments, values, operands, accumulator))
    if not values:
        raise ArgumentError("expression", expression, expected="at least one entry")
    return values


def aligned(parameter: hl.ImageParam, operand: Operand, places: Sequence[hl.Expr]) -> hl.Expr:
    """The element of an operand at the innermost of the places (innermost first); static sizes of 1 broadcast."""
    return parameter[
        tuple(
            hl.i32(0) if size == 1 else place
            for size, place in zip(reversed(operand.shape), places[: len(operand.shape)], strict=True)
        )
    ]


def as_float(value: hl.Expr) -> hl.Expr:
    """A value as float32."""
    return value if value.type() == hl.Float(32) else hl.cast(hl.Float(32), value)


def convert(value: hl.Expr, dtype: str) -> hl.Expr:
    """A value as a dtype of operands; to bool as "is not 0", to an integer by truncation."""
    target = TYPES[dtype]
    if value.type() == target:
        return value
    if dtype == "bool":
        return value != hl.cast(value.type(), 0)
    return hl.cast(target, value)


def _entry(
    entry: tuple[Any, ...],
    name: str,
    arguments: list[Any],
    values: list[hl.Expr],
    operands: Sequence[hl.Expr | None],
    accumulator: hl.Expr | None,
) -> hl.Expr:
    def value(position: int) -> hl.Expr:
        number = arguments[position]
        if not isinstance(number, int) or not 0 <= number < len(values):
            raise ArgumentError("expression", entry, expected="numbers of entries before this one")
        return values[number]

    if name == "accumulator" and accumulator is not None:
        return accumulator
    if name == "operand":
        if not 0 <= arguments[0] < len(operands) or (operand := operands[arguments[0]]) is None:
            raise ArgumentError("expression", entry, expected="the number of an operand that it may use")
        # Arithmetic in bfloat16 would round after each step.
        return as_float(operand) if operand.type() == hl.BFloat(16) else operand
    if name == "constant":
        return _constant(arguments[0])
    if name == "where" and len(arguments) == 3:
        return hl.select(_truth(value(0)), *_same(value(1), value(2)))
    if name == "cast" and len(arguments) == 2 and arguments[0] in TYPES:
        return convert(value(1), arguments[0])
    if name in _UNARY and len(arguments) == 1:
        return _UNARY[name](as_float(value(0)))
    if name in _EXACT and len(arguments) == 1:
        return _EXACT[name](value(0))
    if name in _BINARY and len(arguments) == 2:
        return _BINARY[name](*_same(value(0), value(1)))
    if name in _LOGICAL and len(arguments) == 2:
        return _LOGICAL[name](_truth(value(0)), _truth(value(1)))
    raise ArgumentError("expression", entry, expected="an entry of taut.codegen.Expression")


def _sums_exponentials(expression: Expression, number: int) -> bool:
    name, *arguments = expression[number]
    return name == "row_sum" and expression[arguments[0]][0] == "exp"


def _constant(number: float) -> hl.Expr:
    if isinstance(number, bool):
        return hl.cast(hl.Bool(), int(number))
    if isinstance(number, int):
        return hl.i32(number) if -(2**31) <= number < 2**31 else hl.i64(number)
    if math.isfinite(number):
        return hl.f32(number)
    bits = 0x7FC00000 if math.isnan(number) else 0x7F800000 if number > 0 else -0x800000
    return hl.reinterpret(hl.Float(32), hl.i32(bits))


def _truth(value: hl.Expr) -> hl.Expr:
    return convert(value, "bool")


def _same(a: hl.Expr, b: hl.Expr) -> tuple[hl.Expr, hl.Expr]:
    first, second = a.type(), b.type()
    if first == second:
        return a, b
    if first.is_float() or second.is_float():
        return as_float(a), as_float(b)
    wider = max((first, second), key=lambda kind: (kind.bits(), kind.is_int()))
    if wider == hl.UInt(8) and hl.Int(8) in (first, second):
        wider = hl.Int(16)
    return hl.cast(wider, a), hl.cast(wider, b)


def _sign(x: hl.Expr) -> hl.Expr:
    zero = hl.cast(x.type(), 0)
    return hl.cast(x.type(), hl.select(x > zero, 1, x < zero, -1, 0))


def _divide(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    return as_float(a) / as_float(b)


def _remainder(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    # The result has the sign of the divisor, as in Python.
    if a.type().is_float():
        return a - hl.floor(a / b) * b
    remainder = hl.mod_round_to_zero(a, b)
    zero = hl.cast(a.type(), 0)
    return hl.select((remainder != zero) & ((remainder < zero) != (b < zero)), remainder + b, remainder)


_UNARY: dict[str, _Unary] = {
    "exp": _math.exp,
    "log": _math.log,
    "sqrt": hl.sqrt,
    "rsqrt": lambda x: hl.f32(1.0) / hl.sqrt(x),
    "reciprocal": lambda x: hl.f32(1.0) / x,
    "tanh": _math.tanh,
    "sigmoid": _math.sigmoid,
    "erf": _math.erf,
    "gelu": _math.gelu,
    "gelu_tanh": _math.gelu_tanh,
    "silu": _math.silu,
    "sin": _math.sin,
    "cos": _math.cos,
    "floor": hl.floor,
    "ceil": hl.ceil,
    "round": hl.round,
}
_EXACT: dict[str, _Unary] = {
    "neg": lambda x: -x,
    "abs": lambda x: hl.cast(x.type(), hl.abs(x)),
    "relu": lambda x: _math.relu(x) if x.type() == hl.Float(32) else hl.max(x, hl.cast(x.type(), 0)),
    "sign": _sign,
    "not": lambda x: ~_truth(x),
}
_BINARY: dict[str, _Binary] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "maximum": _math.maximum,
    "minimum": _math.minimum,
    "pow": lambda a, b: _math.power(as_float(a), as_float(b)),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "remainder": _remainder,
}
_LOGICAL: dict[str, _Binary] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
}
