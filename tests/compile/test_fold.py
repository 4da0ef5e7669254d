"""Folds over trees, node by node and batched by depth, against plain recursion."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from taut.compile._builder import ProgramBuilder
from taut.compile._builder_body import Cell
from taut.compile._fold import Case, fold
from taut.errors import ArgumentError, GuardError
from taut.runtime import Object, Opcode, Parameter, Session, load

LEAF, WORD, UNARY, BINARY = 0, 3, 1, 7


class Leaf(nn.Module):
    """States of a node without children, from a vector or two."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 8)
        self.inputs = inputs

    def forward(self, *xs: Tensor) -> tuple[Tensor, Tensor]:
        h, c = self.linear(sum(xs[1:], xs[0])).chunk(2, dim=-1)
        return torch.tanh(h), c


class Unary(nn.Module):
    """One child, and a vector of the node's own between its two fields."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 4)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(self.linear(torch.cat([x, h], dim=-1))), c - 1


class Binary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, h0: Tensor, c0: Tensor, h1: Tensor, c1: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.linear(torch.cat([h0, h1], dim=-1)))
        return h, h * c0 - 0.5 * c1


torch.manual_seed(0)
MODULES = {LEAF: Leaf(1).eval(), WORD: Leaf(2).eval(), UNARY: Unary().eval(), BINARY: Binary().eval()}
FIELDS = {
    LEAF: ("tensor",),
    WORD: ("tensor", "tensor"),
    UNARY: ("tensor", "child"),
    BINARY: ("child", "child"),
}


def make_cells() -> dict[int, Cell]:
    builder = ProgramBuilder()
    x, state = torch.zeros(2, 3), torch.zeros(2, 4)
    examples = {LEAF: (x,), WORD: (x, x), UNARY: (x, state, state), BINARY: (state,) * 4}
    return {tag: builder.cell(str(tag), MODULES[tag], examples[tag]) for tag in MODULES}


CELLS = make_cells()


def session(*, batched: bool) -> Session:
    cases = {tag: Case(CELLS[tag], FIELDS[tag]) for tag in MODULES}
    program = ProgramBuilder().program(fold("encode", cases, batched=batched), (Parameter("tree", "object"),))
    return load(program).session(poison=True)


SESSIONS = {batched: session(batched=batched) for batched in (False, True)}


@torch.no_grad()
def recurse(tree: Object) -> tuple[Tensor, Tensor]:
    arguments: list[Tensor] = []
    for kind, field in zip(FIELDS[tree.tag], tree.fields, strict=True):
        arguments += recurse(field) if kind == "child" else [field[None]]
    return MODULES[tree.tag](*arguments)


vectors = st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3).map(torch.tensor)
trees = st.recursive(
    st.one_of(
        st.builds(lambda x: Object(LEAF, (x,)), vectors), st.builds(lambda x, y: Object(WORD, (x, y)), vectors, vectors)
    ),
    lambda children: st.one_of(
        st.builds(lambda x, child: Object(UNARY, (x, child)), vectors, children),
        st.builds(lambda a, b: Object(BINARY, (a, b)), children, children),
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("batched", [False, True])
@settings(max_examples=40)
@given(tree=trees)
def test_equals_plain_recursion(batched: bool, tree: Object) -> None:
    found = SESSIONS[batched](tree)
    for state, expected in zip(found, recurse(tree), strict=True):
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batched", [False, True])
def test_deep_chain_and_strided_fields(batched: bool) -> None:
    tree = Object(LEAF, (torch.randn(3, 2)[:, 0],))
    for _ in range(150):
        tree = Object(BINARY, (tree, Object(LEAF, (torch.randn(3),))))
    found = SESSIONS[batched](tree)
    for state, expected in zip(found, recurse(tree), strict=True):
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-5)


def calls_of_cells(tree: Object) -> int:
    cases = {tag: Case(CELLS[tag], FIELDS[tag]) for tag in MODULES}
    program = ProgramBuilder().program(fold("encode", cases), (Parameter("tree", "object"),))
    times = load(program).session().profile(tree)
    return sum(
        time.calls
        for time in times
        if program.functions[time.function].instructions[time.instruction][0] == Opcode.FALLBACK
    )


def test_one_call_a_depth() -> None:
    def full(depth: int) -> Object:
        if depth == 0:
            return Object(LEAF, (torch.randn(3),))
        return Object(BINARY, (full(depth - 1), full(depth - 1)))

    # All 32 leaves in one call, and 31 inner nodes in five.
    assert calls_of_cells(full(5)) == 6


@pytest.mark.parametrize("batched", [False, True])
def test_unknown_tag(batched: bool) -> None:
    with pytest.raises(GuardError, match="a node has the tag 9"):
        SESSIONS[batched](Object(BINARY, (Object(LEAF, (torch.zeros(3),)), Object(9, ()))))


@pytest.mark.parametrize(
    ("cases", "text"),
    [
        ({BINARY: (BINARY, FIELDS[BINARY])}, "at least one case without children"),
        ({LEAF: (LEAF, ("tensor",)), BINARY: (BINARY, ("child",))}, "inputs of the cell of tag 7"),
        ({LEAF: (LEAF, ("leaf",))}, "fields of tag 0"),
    ],
)
def test_refusals(cases: dict[int, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        fold("encode", {tag: Case(CELLS[cell], fields) for tag, (cell, fields) in cases.items()})
