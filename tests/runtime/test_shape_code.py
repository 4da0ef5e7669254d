"""Shape code computes what Python computes, and stops where 64 bits end."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
from assembly import Op, Sh, flat, function, integer, program, session, shape
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import GraphError
from taut.runtime import Program, ShapeCode

BINARY: dict[ShapeCode, Callable[[int, int], int]] = {
    Sh.ADD: operator.add,
    Sh.SUB: operator.sub,
    Sh.MUL: operator.mul,
    Sh.FLOORDIV: operator.floordiv,
    Sh.CEILDIV: lambda a, b: -(-a // b),
    Sh.MOD: operator.mod,
    Sh.MIN: min,
    Sh.MAX: max,
    Sh.EQ: operator.eq,
    Sh.NE: operator.ne,
    Sh.LT: operator.lt,
    Sh.LE: operator.le,
    Sh.GT: operator.gt,
    Sh.GE: operator.ge,
    Sh.AND: lambda a, b: bool(a) and bool(b),
    Sh.OR: lambda a, b: bool(a) or bool(b),
}
LIMIT = 2**63
Expression = int | tuple
INTEGERS = st.integers(-20, 20) | st.sampled_from([-LIMIT, LIMIT - 1, 2**32, -(2**31)]) | st.integers(-LIMIT, LIMIT - 1)


def compound(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return (
        st.tuples(st.sampled_from(list(BINARY)), children, children)
        | st.tuples(st.just(Sh.NOT), children)
        | st.tuples(st.just(Sh.SELECT), children, children, children)
    )


EXPRESSIONS = st.recursive(INTEGERS | st.sampled_from([("slot", 0), ("slot", 1)]), compound, max_leaves=24)


def words(expression: Expression) -> list[int]:
    if isinstance(expression, int):
        return [Sh.PUSH, expression]
    if expression[0] == "slot":
        return [Sh.LOAD, expression[1]]
    return [word for part in expression[1:] for word in words(part)] + [expression[0]]


def value(expression: Expression, slots: list[int]) -> int:
    """What Python computes; every operand is evaluated, as on the stack."""
    if isinstance(expression, int):
        return expression
    if expression[0] == "slot":
        return slots[expression[1]]
    parts = [value(part, slots) for part in expression[1:]]
    if expression[0] is Sh.NOT:
        return int(not parts[0])
    if expression[0] is Sh.SELECT:
        return parts[1] if parts[0] else parts[2]
    result = int(BINARY[expression[0]](*parts))
    if not -LIMIT <= result < LIMIT:
        raise OverflowError
    return result


def computes(*code: int) -> Program:
    return program(
        [integer("a"), integer("b")],
        flat(Op.LOAD, 0, 0),
        flat(Op.LOAD, 1, 1),
        shape(*code),
        flat(Op.STORE, 2, 2),
        flat(Op.RETURN, [2]),
    )


@given(EXPRESSIONS, INTEGERS, INTEGERS)
@settings(max_examples=300, deadline=None)
def test_random_expressions_agree_with_python(expression: Expression, a: int, b: int) -> None:
    call = session(computes(*words(expression), Sh.STORE, 2))
    try:
        expected = value(expression, [a, b])
    except (OverflowError, ZeroDivisionError):
        with pytest.raises(GraphError, match="overflows or something is divided by zero"):
            call(a, b)
    else:
        assert call(a, b) == [expected]


@pytest.mark.parametrize(
    "code",
    [
        (Sh.PUSH,),
        (Sh.PUSH, 1),
        (Sh.ADD,),
        (Sh.STORE, 2),
        (Sh.PUSH, 1, Sh.PUSH, 1, Sh.SELECT, Sh.STORE, 2),
        (Sh.LOAD, 16, Sh.STORE, 2),
        (Sh.PUSH, 1, Sh.STORE, 16),
        (Sh.LOAD, -1, Sh.STORE, 2),
        (21,),
        (-1,),
        (Sh.PUSH, 1) * 65 + (Sh.ADD,) * 64 + (Sh.STORE, 2),
    ],
)
def test_malformed_shape_code_is_refused(code: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"instruction 2 \(SHAPE\): shape code"):
        session(computes(*code))


def test_the_deepest_stack() -> None:
    assert session(computes(*(Sh.PUSH, 1) * 64, *(Sh.ADD,) * 63, Sh.STORE, 2))(0, 0) == [64]


@pytest.mark.parametrize(("start", "end"), [(0, 9), (-1, 2), (3, 2), (9, 9)])
def test_a_range_outside_the_code_is_refused(start: int, end: int) -> None:
    made = function((Op.SHAPE, start, end), flat(Op.RETURN, []), gives=0)
    with pytest.raises(GraphError, match="SHAPE"):
        session(Program((made,), (), ()))
