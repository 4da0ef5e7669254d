"""Size expressions as JSON in prefix notation, parsed by our own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy

from taut.errors import ArtefactError, GraphError
from taut.graph._symbols import symbol

MAXIMAL_DEPTH = 64
_INTEGER_LIMIT = 2**63

_HEADS: dict[str, Callable[..., sympy.Basic]] = {
    "+": sympy.Add,
    "*": sympy.Mul,
    "^": sympy.Pow,
    "floor": sympy.floor,
    "ceiling": sympy.ceiling,
    "mod": sympy.Mod,
    "max": sympy.Max,
    "min": sympy.Min,
    "abs": sympy.Abs,
    "sign": sympy.sign,
    "==": sympy.Eq,
    "!=": sympy.Ne,
    "<": sympy.Lt,
    "<=": sympy.Le,
    ">": sympy.Gt,
    ">=": sympy.Ge,
    "and": sympy.And,
    "or": sympy.Or,
    "not": sympy.Not,
}
_HEAD_NAMES = {head: name for name, head in _HEADS.items()}
_ARITHMETIC = _HEADS.keys() - {"==", "!=", "and", "or", "not"}
_ARITY = {"^": 2, "floor": 1, "ceiling": 1, "mod": 2, "abs": 1, "sign": 1, "not": 1}
_ARITY |= dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 2)


def encode_expression(expression: sympy.Basic) -> Any:
    """A size expression in prefix notation: integers, symbol names, and lists [head, operand, ...]."""
    if isinstance(expression, sympy.Symbol):
        return expression.name
    if isinstance(expression, sympy.Integer):
        return int(expression)
    if isinstance(expression, sympy.Rational):
        return ["/", int(expression.p), int(expression.q)]
    if isinstance(expression, sympy.Float):
        return ["float", float(expression).hex()]
    if expression == sympy.true or expression == sympy.false:
        return bool(expression)
    if isinstance(expression, sympy.Piecewise):
        pieces = ((condition, value) for value, condition in expression.args)  # pyright: ignore - sympy's pairs
        return ["select", *([encode_expression(condition), encode_expression(value)] for condition, value in pieces)]
    name = _HEAD_NAMES.get(expression.func)
    if name is None:
        raise GraphError(f"a size expression uses {expression.func.__name__}, which a graph file cannot hold")
    # sorted, because sympy's own order is not promised
    operands = [encode_expression(argument) for argument in expression.args]
    return [name, *(sorted(operands, key=str) if name in ("+", "*", "max", "min", "and", "or") else operands)]


def decode_expression(data: Any, depth: int = 0) -> sympy.Basic:
    """The expression from its prefix notation.

    Raises:
        ArtefactError: if the notation is malformed.
    """
    if isinstance(data, bool):
        return sympy.true if data else sympy.false
    if isinstance(data, int):
        return sympy.Integer(bounded(data))
    if isinstance(data, str):
        if not (data.isidentifier() and len(data) <= 64):
            raise ArtefactError(f"{data[:80]!r} is no symbol name")
        return symbol(data)
    if not isinstance(data, list) or not data or not isinstance(data[0], str) or depth > MAXIMAL_DEPTH:
        raise ArtefactError(f"malformed size expression {str(data)[:80]}")
    head, operands = data[0], data[1:]
    if head == "/" and len(operands) == 2 and all(type(item) is int for item in operands) and operands[1] != 0:
        return sympy.Rational(bounded(operands[0]), bounded(operands[1]))
    if head == "float" and len(operands) == 1:
        return sympy.Float(hexadecimal(operands[0]))
    if head == "select" and operands and all(isinstance(item, list) and len(item) == 2 for item in operands):
        pieces = [(decode_expression(v, depth + 1), decode_expression(c, depth + 1)) for c, v in operands]
        return _apply(sympy.Piecewise, pieces)
    if head not in _HEADS or not operands or len(operands) > 256 or len(operands) != _ARITY.get(head, len(operands)):
        raise ArtefactError(f"malformed size expression {str(data)[:80]}")
    values = [decode_expression(item, depth + 1) for item in operands]
    if head in _ARITHMETIC and not all(isinstance(value, sympy.Expr) for value in values):
        raise ArtefactError(f"{head} of a truth value", expected="numbers")
    if head == "^" and not (isinstance(values[1], sympy.Integer) and abs(int(values[1])) <= 64):
        raise ArtefactError(f"a power of {values[1]}", expected="a literal exponent from -64 to 64")
    return _apply(_HEADS[head], values)


def _apply(function: Callable[..., sympy.Basic], values: list[Any]) -> sympy.Basic:
    try:
        result = function(*values)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, RecursionError) as error:
        raise ArtefactError(f"malformed size expression: {error}") from error
    if isinstance(result, sympy.Rational):
        bounded(int(result.p))
        bounded(int(result.q))
    if result.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ArtefactError("a size expression divides by zero")
    return result


def bounded(value: int) -> int:
    """An integer that fits 64 bits.

    Raises:
        ArtefactError: if it does not.
    """
    if abs(value) > _INTEGER_LIMIT:
        raise ArtefactError(f"an integer of {value.bit_length()} bits", expected="64 bits at most")
    return value


def hexadecimal(text: Any) -> float:
    """The number behind a hexadecimal literal, "nan" or "inf".

    Raises:
        ArtefactError: if it is none.
    """
    try:
        return float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        raise ArtefactError(f"{str(text)[:80]!r} is no floating-point literal") from None
