"""Symbolic sizes: evaluation in exact integers, translation from torch's own sympy functions."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import sympy
from torch.utils._sympy import functions as torch_functions

from taut.errors import ArgumentError, GraphError
from taut.graph._types import Dim

Number = int | float | bool | Fraction


def symbol(name: str) -> sympy.Symbol:
    """The symbol of that name with the assumptions that every size has: an integer, not negative."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


def evaluate(expression: Dim, sizes: Mapping[str, int]) -> int:
    """The integer value of a dimension or a cost at given sizes.

    Args:
        expression: an integer, or an expression over symbols.
        sizes: the value of each symbol by name.

    Returns:
        The exact value.

    Raises:
        ArgumentError: if a symbol has no size, or the value is no integer.
    """
    if isinstance(expression, int):
        return int(expression)
    value = evaluate_number(expression, sizes)
    if value != int(value):
        raise ArgumentError("sizes", dict(sizes), expected=f"sizes at which {expression} is an integer")
    return int(value)


def evaluate_number(expression: sympy.Basic, sizes: Mapping[str, int]) -> Number:
    """The value of an expression or a relation, exact where it is rational."""
    try:
        return compiled(expression)(sizes)
    except KeyError as error:
        raise ArgumentError("sizes", dict(sizes), expected=f"a size for the symbol {error.args[0]}") from None
    except (ArithmeticError, ValueError) as error:
        raise ArgumentError("sizes", dict(sizes), expected=f"sizes at which {expression} is defined") from error


@functools.lru_cache(maxsize=65536)
def compiled(expression: sympy.Basic) -> Callable[[Mapping[str, int]], Number]:
    """The expression as a function of sizes by symbol name.

    Raises:
        GraphError: if the expression holds a function that graphs do not know.
    """
    if isinstance(expression, sympy.Symbol):
        return operator.itemgetter(expression.name)
    literal = _literal(expression)
    if literal is not None:
        return lambda sizes: literal
    if isinstance(expression, sympy.Piecewise):
        pieces = [(compiled(value), compiled(condition)) for value, condition in expression.args]  # pyright: ignore
        return lambda sizes: _selected(pieces, sizes)
    function = _FUNCTIONS.get(expression.func)
    if function is None:
        raise GraphError(f"a size expression uses {expression.func.__name__}, which taut does not evaluate")
    parts = [compiled(argument) for argument in expression.args]
    if len(parts) == 2:
        left, right = parts
        return lambda sizes: function(left(sizes), right(sizes))
    return lambda sizes: function(*[part(sizes) for part in parts])


def _selected(pieces: list[tuple[Callable[..., Number], Callable[..., Number]]], sizes: Mapping[str, int]) -> Number:
    for value, condition in pieces:
        if condition(sizes):
            return value(sizes)
    raise ArithmeticError("no case holds")


def _literal(expression: sympy.Basic) -> Number | None:
    if isinstance(expression, sympy.Rational):
        return int(expression.p) if expression.q == 1 else Fraction(int(expression.p), int(expression.q))
    if isinstance(expression, sympy.Float):
        return float(expression)
    if expression == sympy.true or expression == sympy.false:
        return bool(expression)
    return None


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(exponent, int) and abs(exponent) <= 64:
        return base**exponent if exponent >= 0 else Fraction(1) / Fraction(base) ** -exponent
    return float(base) ** float(exponent)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    sympy.Add: lambda *terms: sum(terms),
    sympy.Mul: lambda *factors: math.prod(factors),
    sympy.Pow: _power,
    sympy.floor: math.floor,
    sympy.ceiling: math.ceil,
    sympy.Mod: lambda a, b: a % b,
    sympy.Max: max,
    sympy.Min: min,
    sympy.Abs: abs,
    sympy.sign: lambda a: (a > 0) - (a < 0),
    sympy.Eq: lambda a, b: a == b,
    sympy.Ne: lambda a, b: a != b,
    sympy.Lt: lambda a, b: a < b,
    sympy.Le: lambda a, b: a <= b,
    sympy.Gt: lambda a, b: a > b,
    sympy.Ge: lambda a, b: a >= b,
    sympy.And: lambda *parts: all(parts),
    sympy.Or: lambda *parts: any(parts),
    sympy.Not: lambda part: not part,
}


class Translation:
    """Translates torch's size expressions into plain sympy over canonical symbol names.

    Names are handed out in order of appearance, `s0, s1, ...` for dimensions of inputs and `u0, u1, ...` for sizes
    that depend on data, so that they do not depend on torch's own naming.
    """

    def __init__(self) -> None:
        self.names: dict[sympy.Symbol, sympy.Symbol] = {}
        self.backed: dict[str, bool] = {}

    def __call__(self, expression: sympy.Basic | int | float) -> sympy.Basic:
        """The plain expression.

        Raises:
            GraphError: if torch used a function that has no plain counterpart.
        """
        expression = sympy.sympify(expression)
        if isinstance(expression, sympy.Symbol):
            return self.rename(expression)
        if not expression.args:
            return expression
        arguments = [self(argument) for argument in expression.args]
        special = _TORCH_FUNCTIONS.get(expression.func)
        if special is not None:
            return special(*arguments)
        if expression.func not in _FUNCTIONS:
            raise GraphError(
                f"a size is computed by {expression.func.__name__}, which a graph cannot hold",
                fix="compute the size with integer arithmetic",
            )
        return expression.func(*arguments)

    def rename(self, old: sympy.Symbol) -> sympy.Symbol:
        """The canonical symbol of one of torch's."""
        if old not in self.names:
            unbacked = old.name.startswith(("u", "zuf"))
            count = sum(kind is not unbacked for kind in self.backed.values())
            name = f"{'u' if unbacked else 's'}{count}"
            self.names[old] = symbol(name)
            self.backed[name] = not unbacked
        return self.names[old]


_TORCH_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch_functions.FloorDiv: lambda a, b: sympy.floor(a / b),
    torch_functions.CleanDiv: lambda a, b: sympy.floor(a / b),
    torch_functions.CeilDiv: lambda a, b: sympy.ceiling(a / b),
    torch_functions.ModularIndexing: lambda a, b, c: sympy.Mod(sympy.floor(a / b), c),
    torch_functions.Mod: sympy.Mod,
    torch_functions.PythonMod: sympy.Mod,
    torch_functions.Max: sympy.Max,
    torch_functions.Min: sympy.Min,
    torch_functions.Where: lambda c, a, b: sympy.Piecewise((a, c), (b, sympy.true)),
    torch_functions.IntTrueDiv: lambda a, b: a / b,
    torch_functions.FloatTrueDiv: lambda a, b: a / b,
    torch_functions.ToFloat: lambda a: a,
    torch_functions.TruncToInt: lambda a: sympy.sign(a) * sympy.floor(sympy.Abs(a)),
    torch_functions.FloorToInt: sympy.floor,
    torch_functions.CeilToInt: sympy.ceiling,
    torch_functions.PowByNatural: sympy.Pow,
    torch_functions.FloatPow: sympy.Pow,
    torch_functions.Identity: lambda a: a,
}
