"""Sizes at run time: expressions over symbols compiled to the machine's shape code."""

from __future__ import annotations

import sympy

from taut.errors import GraphError
from taut.graph import Dim
from taut.runtime import Opcode, ShapeCode

_RELATIONS = {
    sympy.Eq: ShapeCode.EQ,
    sympy.Ne: ShapeCode.NE,
    sympy.Lt: ShapeCode.LT,
    sympy.Le: ShapeCode.LE,
    sympy.Gt: ShapeCode.GT,
    sympy.Ge: ShapeCode.GE,
}
_FOLDS = {
    sympy.Add: ShapeCode.ADD,
    sympy.Mul: ShapeCode.MUL,
    sympy.Max: ShapeCode.MAX,
    sympy.Min: ShapeCode.MIN,
    sympy.And: ShapeCode.AND,
    sympy.Or: ShapeCode.OR,
}


class Sizes:
    """The heap of one function: a slot for each size that its code needs.

    Sizes of what is known at entry are computed by one run of shape code at the start; those that depend on data
    where they are first asked for.
    """

    def __init__(self) -> None:
        self.code: list[int] = []
        self.count = 0
        self._slots: dict[sympy.Basic, int] = {}
        self._bound: set[str] = set()
        self._pending: list[int] = []

    def new_slot(self) -> int:
        """A slot of its own."""
        self.count += 1
        return self.count - 1

    def bind(self, symbol: str) -> int:
        """The slot that holds a symbol, from here on."""
        slot = self.new_slot()
        self._slots[sympy.Symbol(symbol, integer=True, nonnegative=True)] = slot
        self._bound.add(symbol)
        return slot

    def define(self, symbol: str, value: sympy.Expr) -> int:
        """The slot that holds a symbol, whose value is computed."""
        slot = self.slot(value)
        self._slots[sympy.Symbol(symbol, integer=True, nonnegative=True)] = slot
        self._bound.add(symbol)
        return slot

    def is_bound(self, symbol: str) -> bool:
        """Whether the symbol has a slot."""
        return symbol in self._bound

    def slot(self, size: Dim | sympy.Basic) -> int:
        """The slot that holds a size; its code is appended to what `flush` returns.

        Raises:
            GraphError: if the expression holds an unknown function or a symbol that is not bound yet.
        """
        key = sympy.sympify(size)
        if key not in self._slots:
            words: list[int] = []
            _compile(key, self._slots, words)
            self._slots[key] = self.new_slot()
            self._pending += [*words, ShapeCode.STORE, self._slots[key]]
        return self._slots[key]

    def flush(self) -> list[tuple[int, ...]]:
        """The instruction that computes the sizes asked for since the last flush, if any."""
        if not self._pending:
            return []
        start = len(self.code)
        self.code += self._pending
        self._pending = []
        return [(Opcode.SHAPE, start, len(self.code))]


def _compile(expression: sympy.Basic, slots: dict[sympy.Basic, int], words: list[int]) -> None:
    """Append the words that leave the value on the stack."""
    if expression in slots:
        words += [ShapeCode.LOAD, slots[expression]]
    elif expression == sympy.true or expression == sympy.false:
        words += [ShapeCode.PUSH, int(bool(expression))]
    elif isinstance(expression, sympy.Integer):
        words += [ShapeCode.PUSH, int(expression)]
    elif isinstance(expression, (sympy.floor, sympy.ceiling)):
        numerator, denominator = sympy.fraction(sympy.together(expression.args[0]))
        _compile(numerator, slots, words)
        _compile(denominator, slots, words)
        words.append(ShapeCode.FLOORDIV if isinstance(expression, sympy.floor) else ShapeCode.CEILDIV)
    elif isinstance(expression, sympy.Mod):
        for part in expression.args:
            _compile(part, slots, words)
        words.append(ShapeCode.MOD)
    elif isinstance(expression, sympy.Pow) and isinstance(expression.exp, sympy.Integer) and 0 < expression.exp <= 64:
        for position in range(int(expression.exp)):
            _compile(expression.base, slots, words)
            words += [ShapeCode.MUL] if position else []
    elif isinstance(expression, sympy.Piecewise):
        *cases, last = expression.args
        for case in cases:
            _compile(case.args[1], slots, words)
            _compile(case.args[0], slots, words)
        _compile(last.args[0], slots, words)
        words += [ShapeCode.SELECT] * len(cases)
    elif isinstance(expression, sympy.Not):
        _compile(expression.args[0], slots, words)
        words.append(ShapeCode.NOT)
    elif expression.func in _RELATIONS:
        for part in expression.args:
            _compile(part, slots, words)
        words.append(_RELATIONS[expression.func])
    elif expression.func in (sympy.Add, sympy.Mul) and _has_fraction(expression):
        numerator, denominator = sympy.fraction(sympy.together(expression))
        if denominator == 1 or numerator == expression:
            raise _unknown(expression)
        _compile(numerator, slots, words)
        _compile(denominator, slots, words)
        words.append(ShapeCode.FLOORDIV)
    elif expression.func in _FOLDS:
        for position, part in enumerate(expression.args):
            _compile(part, slots, words)
            words += [_FOLDS[expression.func]] if position else []
    else:
        raise _unknown(expression)


def _has_fraction(expression: sympy.Basic) -> bool:
    return sympy.fraction(sympy.together(expression))[1] != 1


def _unknown(expression: sympy.Basic) -> GraphError:
    return GraphError(
        f"the size {expression} cannot be computed by a program",
        expected="integer arithmetic on sizes that are known where it is used",
    )
