"""Shape code over sizes of which some are not known before a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from taut.runtime._program import ShapeCode

_LARGEST = 2**62
_OPERATIONS = {
    ShapeCode.ADD: lambda a, b: a + b,
    ShapeCode.SUB: lambda a, b: a - b,
    ShapeCode.MUL: lambda a, b: a * b,
    ShapeCode.FLOORDIV: lambda a, b: a // b if b else None,
    ShapeCode.CEILDIV: lambda a, b: -(-a // b) if b else None,
    ShapeCode.MOD: lambda a, b: a % b if b else None,
    ShapeCode.MIN: min,
    ShapeCode.MAX: max,
    ShapeCode.EQ: lambda a, b: int(a == b),
    ShapeCode.NE: lambda a, b: int(a != b),
    ShapeCode.LT: lambda a, b: int(a < b),
    ShapeCode.LE: lambda a, b: int(a <= b),
    ShapeCode.GT: lambda a, b: int(a > b),
    ShapeCode.GE: lambda a, b: int(a >= b),
    ShapeCode.AND: lambda a, b: int(bool(a) and bool(b)),
    ShapeCode.OR: lambda a, b: int(bool(a) or bool(b)),
}


class Slots(Protocol):
    """Slots by number, None where a value is not known."""

    def __getitem__(self, number: int, /) -> int | None: ...
    def __setitem__(self, number: int, value: int | None, /) -> None: ...


def compute_sizes(words: Iterable[int], slots: Slots) -> None:
    """Run well-formed shape code over slots of which some are not known.

    What follows from an unknown value is not known either, nor is what the machine refuses to compute, e.g. a size that
    overflows: the numbers stay small whatever the code is.

    Args:
        words: the shape code.
        slots: read and written.
    """
    stack: list[int | None] = []
    rest = iter(words)
    for word in rest:
        code = ShapeCode(word)
        if code is ShapeCode.PUSH:
            stack.append(next(rest))
        elif code is ShapeCode.LOAD:
            stack.append(slots[next(rest)])
        elif code is ShapeCode.STORE:
            slots[next(rest)] = stack.pop()
        elif code is ShapeCode.NOT:
            value = stack.pop()
            stack.append(None if value is None else int(not value))
        elif code is ShapeCode.SELECT:
            otherwise, then, condition = stack.pop(), stack.pop(), stack.pop()
            stack.append(None if condition is None else then if condition else otherwise)
        else:
            b, a = stack.pop(), stack.pop()
            value = None if a is None or b is None else _OPERATIONS[code](a, b)
            stack.append(value if value is not None and abs(value) < _LARGEST else None)
