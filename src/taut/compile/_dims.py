"""Arithmetic on sizes that may be symbolic."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import sympy

from taut.graph import Dim


def plain(value: object) -> Dim:
    """An `int` where the value is one, else a sympy expression in expanded form."""
    if isinstance(value, int):
        return int(value)
    return _expanded(sympy.sympify(value))


@functools.lru_cache(maxsize=65536)
def _expanded(value: sympy.Expr) -> Dim:
    value = sympy.expand(value)
    return int(value) if isinstance(value, sympy.Integer) else value


def product(sizes: Iterable[Dim]) -> Dim:
    """The product of sizes."""
    return plain(math.prod(sizes))


def same(a: Dim, b: Dim) -> bool:
    """Whether two sizes are equal for all values of the symbols, as far as expansion tells."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a == b or plain(a - b) == 0


def quotient(a: Dim, b: Dim) -> Dim | None:
    """A / b where that is a size for all values of the symbols, else None."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    found = sympy.cancel(sympy.sympify(a) / b)
    numerator, denominator = sympy.fraction(found)
    return plain(numerator) if denominator == 1 else None


def free_symbols(size: Dim) -> frozenset[sympy.Symbol]:
    """The symbols that a size depends on."""
    if isinstance(size, int):
        return frozenset()
    return frozenset(item for item in size.free_symbols if isinstance(item, sympy.Symbol))
