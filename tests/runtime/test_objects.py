"""Objects and recursion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from assembly import Op, Sh, flat, function, integer, nested, program, session, shape, tensor

from taut.errors import GraphError, GuardError
from taut.runtime import Object

COUNT_DOWN = shape(Sh.LOAD, 0, Sh.PUSH, 1, Sh.SUB, Sh.STORE, 0)


def tree_sum() -> Any:
    """The sum over a tree: a leaf has tag 0 and an integer, a node tag 1 and any number of children."""
    recursive = function(
        flat(Op.TAG, 0, 0),
        flat(Op.BRANCH, 0, 11),
        flat(Op.LENGTH, 1, 0),
        shape(Sh.LOAD, 2, Sh.LOAD, 1, Sh.LT, Sh.STORE, 5),
        flat(Op.BRANCH, 5, 13),
        flat(Op.FIELD, 1, 0, 2),
        flat(Op.CALL, 1, [1], [2]),
        flat(Op.LOAD, 4, 2),
        shape(Sh.LOAD, 3, Sh.LOAD, 4, Sh.ADD, Sh.STORE, 3, Sh.LOAD, 2, Sh.PUSH, 1, Sh.ADD, Sh.STORE, 2),
        flat(Op.CLEAR, 1),
        flat(Op.JUMP, 3),
        flat(Op.FIELD, 3, 0, 6),
        flat(Op.RETURN, [3]),
        flat(Op.STORE, 3, 3),
        flat(Op.RETURN, [3]),
        takes=1,
        name="sum",
    )
    return program([nested("tree")], flat(Op.CALL, 1, [0], [1]), flat(Op.RETURN, [1]), functions=[recursive])


def test_recursion_over_a_tree() -> None:
    tree = Object(1, [[1], Object(1, [[2], [3], Object(1, [])]), (4,)])
    assert session(tree_sum())(tree) == [10]


def test_recursion_that_is_too_deep_is_refused() -> None:
    tree: Any = [1]
    for _ in range(50):
        tree = Object(1, [tree, [1]])
    assert session(tree_sum(), recursion_limit=52)(tree) == [51]
    with pytest.raises(GraphError, match="nested more than 51 deep"):
        session(tree_sum(), recursion_limit=51)(tree)


def test_an_endless_recursion_ends() -> None:
    endless = function(flat(Op.CALL, 1, [], []), flat(Op.RETURN, []), gives=0)
    made = program([], flat(Op.CALL, 1, [], []), flat(Op.RETURN, []), functions=[endless])
    with pytest.raises(GraphError, match="nested more than"):
        session(made)()


def test_objects_go_in_and_out() -> None:
    made = program(
        [nested("x"), tensor("y", 2)],
        flat(Op.MAKE, 2, 7, [0, 1]),
        flat(Op.APPEND, 3, 2, 1),
        flat(Op.APPEND, 3, 3, 2),
        flat(Op.APPEND, 3, 3, 3),
        flat(Op.MOVE, 4, 3),
        flat(Op.RETURN, [2, 4]),
    )
    x, y = torch.randn(3), torch.randn(2)
    first, second = session(made)([x, (1, Object(9, []))], y)
    assert first.tag == second.tag == 7
    assert torch.equal(first.fields[0].fields[0], x)
    assert first.fields[0].fields[1] == Object(0, [1, Object(9, [])])
    assert len(first.fields) == 2
    assert len(second.fields) == 5
    assert len(second.fields[4].fields) == 4
    assert torch.equal(second.fields[2], y)
    assert all(part.data_ptr() not in (x.data_ptr(), y.data_ptr()) for part in (first.fields[1], second.fields[2]))


def test_a_long_chain_of_objects_is_released() -> None:
    made = program(
        [integer("n")],
        flat(Op.LOAD, 0, 0),
        flat(Op.MAKE, 1, 0, []),
        flat(Op.BRANCH, 0, 6),
        flat(Op.MAKE, 1, 1, [1]),
        COUNT_DOWN,
        flat(Op.JUMP, 2),
        flat(Op.BRANCH, 1, 8),
        flat(Op.RETURN, [1]),
        flat(Op.STORE, 1, 0),
        flat(Op.RETURN, [1]),
    )
    assert session(made)(200_000) == [0]


def test_a_result_that_is_nested_too_deep_is_refused() -> None:
    made = program(
        [integer("n")],
        flat(Op.LOAD, 0, 0),
        flat(Op.MAKE, 1, 0, []),
        flat(Op.BRANCH, 0, 6),
        flat(Op.MAKE, 1, 1, [1]),
        COUNT_DOWN,
        flat(Op.JUMP, 2),
        flat(Op.RETURN, [1]),
    )
    assert session(made)(2) == [Object(1, [Object(1, [Object(0, [])])])]
    with pytest.raises(GraphError, match="nested more than 1000 deep"):
        session(made)(5000)


def test_an_object_that_holds_itself_is_refused() -> None:
    call = session(program([nested("x")], flat(Op.RETURN, [0])))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(GuardError, match="nested more than 1000 deep"):
        call(loop)
    with pytest.raises(GuardError, match="holds a str"):
        call(["text"])
    malformed: Any = 3
    with pytest.raises(GuardError, match="fields of an object cannot be read"):
        call(Object(1, malformed))
