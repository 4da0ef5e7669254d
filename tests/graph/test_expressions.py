"""Size expressions: exact evaluation, and a JSON notation that loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._sympy.functions import CeilDiv, FloorDiv, Mod, Where

from taut.errors import ArgumentError, ArtefactError, GraphError
from taut.graph import evaluate
from taut.graph._expressions import decode_expression, encode_expression
from taut.graph._symbols import Translation, evaluate_number, symbol

NAMES = ("s0", "s1", "u0")
leaves = st.one_of(st.sampled_from(NAMES).map(symbol), st.integers(0, 40).map(sympy.Integer))


def larger(children: st.SearchStrategy[sympy.Expr]) -> st.SearchStrategy[sympy.Expr]:
    pairs = st.tuples(children, children)
    divisors = st.tuples(children, st.integers(1, 9))
    return st.one_of(
        pairs.map(lambda pair: pair[0] + pair[1]),
        pairs.map(lambda pair: pair[0] * pair[1]),
        pairs.map(lambda pair: sympy.Max(*pair)),
        pairs.map(lambda pair: sympy.Min(*pair)),
        divisors.map(lambda pair: sympy.floor(pair[0] / pair[1])),
        divisors.map(lambda pair: sympy.ceiling(pair[0] / pair[1])),
        divisors.map(lambda pair: sympy.Mod(pair[0], pair[1])),
    )


expressions = st.recursive(leaves, larger, max_leaves=6)
assignments = st.fixed_dictionaries({name: st.integers(0, 600) for name in NAMES})


@settings(max_examples=60, deadline=None)
@given(expressions, assignments)
def test_evaluation_equals_sympy(expression: sympy.Expr, sizes: dict[str, int]) -> None:
    expected = expression.subs({symbol(name): size for name, size in sizes.items()})
    assert evaluate(expression, sizes) == int(expected)


@settings(max_examples=60, deadline=None)
@given(expressions)
def test_the_json_notation_gives_the_same_expression(expression: sympy.Expr) -> None:
    text = json.dumps(encode_expression(expression))
    assert decode_expression(json.loads(text)) == expression


@settings(max_examples=30, deadline=None)
@given(expressions, expressions, st.sampled_from([sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge]))
def test_relations_survive_the_notation(left: sympy.Expr, right: sympy.Expr, relation: type) -> None:
    condition = relation(left, right)
    decoded = decode_expression(json.loads(json.dumps(encode_expression(condition))))
    sizes = {"s0": 7, "s1": 24, "u0": 5}
    assert decoded == condition
    assert evaluate_number(decoded, sizes) == bool(condition.subs({symbol(name): size for name, size in sizes.items()}))


def test_logic_and_selection_survive_the_notation() -> None:
    s0 = symbol("s0")
    chosen = sympy.Piecewise((s0 * 2, s0 < 5), (s0 + 1, sympy.true))
    either = sympy.Or(sympy.And(s0 > 2, s0 < 4), sympy.Not(sympy.Eq(sympy.Mod(s0, 3), 0)))
    for expression in (chosen, either, sympy.Rational(3, 7) * s0, sympy.Float(0.1), sympy.true):
        assert decode_expression(json.loads(json.dumps(encode_expression(expression)))) == expression
    assert [evaluate(chosen, {"s0": size}) for size in (4, 5)] == [8, 6]


def test_torchs_functions_become_plain_ones() -> None:
    old, data = sympy.Symbol("s77", integer=True, positive=True), sympy.Symbol("u3", integer=True)
    translation: Any = Translation()
    assert str(translation(FloorDiv(old + 1, 2))) == "floor(s0/2 + 1/2)"
    assert [evaluate(translation(CeilDiv(old, 4)), {"s0": size}) for size in (4, 5)] == [1, 2]
    assert translation(Mod(data, 8)) == sympy.Mod(symbol("u0"), 8)
    assert evaluate(translation(Where(old > 3, old, data)), {"s0": 3, "u0": 11}) == 11
    assert translation.backed == {"s0": True, "u0": False}


def test_a_function_without_plain_counterpart_is_named() -> None:
    with pytest.raises(GraphError, match="sin"):
        Translation()(sympy.sin(sympy.Symbol("s0")))


def test_a_missing_size_is_named() -> None:
    with pytest.raises(ArgumentError, match="a size for the symbol s1"):
        evaluate(symbol("s0") * symbol("s1"), {"s0": 2})


def test_a_fraction_is_no_size() -> None:
    with pytest.raises(ArgumentError, match="is an integer"):
        evaluate(symbol("s0") / 2, {"s0": 3})
    assert evaluate(symbol("s0") / 2, {"s0": torch.Size([4])[0]}) == 2


@pytest.mark.parametrize("text", ['["+", "s0", true]', '["*", ["<", "s0", 3], 2]', '["max", ["not", true], "s0"]'])
def test_arithmetic_on_truth_values_is_refused(text: str) -> None:
    with pytest.raises(ArtefactError, match="of a truth value"):
        decode_expression(json.loads(text))


def test_a_selection_without_a_case_is_an_error_of_the_sizes() -> None:
    s0 = symbol("s0")
    with pytest.raises(ArgumentError, match="is defined"):
        evaluate(sympy.Piecewise((s0, s0 < 3)), {"s0": 4})
