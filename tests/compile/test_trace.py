"""What a program is said to do without running it agrees with what the compiler planned and what the machine does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.compile._prepare import prepare
from taut.compile._program import Lowered, lower
from taut.compile._trace import trace
from taut.graph import Graph, Ref, bind_sizes, capture, evaluate
from taut.runtime import Function, Kernel, Opcode, OperandType, Parameter, Program, ShapeCode


class Block(torch.nn.Module):
    """A residual block with a dynamic number of rows and features that are reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(8, 24), torch.nn.Linear(24, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.outer(torch.relu(self.inner(x)))
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x


@pytest.fixture(scope="module")
def planned() -> tuple[Graph, Lowered]:
    both = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    graph = prepare(capture(Block().eval(), (torch.zeros(3, 5, 8),), dynamic_shapes=(both,)))
    return graph, lower(graph)


@given(batch=st.integers(2, 40), length=st.integers(2, 70))
def test_the_arena_is_the_planned_one(planned: tuple[Graph, Lowered], batch: int, length: int) -> None:
    graph, lowered = planned
    sizes = bind_sizes(graph, torch.zeros(batch, length, 8))
    found = trace(lowered.program, [(batch, length, 8)])[0]
    (plan,) = lowered.plans
    assert found.arena == evaluate(plan.total, sizes)
    assert found.lower_bound == plan.lower_bound(sizes)
    assert len(found.allocations) == len(plan.live)
    assert found.storage == batch * length * 8 * 4  # the result alone


def test_operands_have_their_shapes(planned: tuple[Graph, Lowered]) -> None:
    found = trace(planned[1].program, [(3, 5, 8)])[0]
    shapes = [work.operands[-1].sizes for work in found.work if work.operands[-1] is not None]
    assert shapes[0] == (15, 24)
    assert shapes[-1] == (3, 5, 8)
    first = found.work[0].operands
    assert [operand.origin for operand in first if operand is not None] == ["input", "constant", "constant", "arena"]


def test_sizes_that_depend_on_data_are_unknown() -> None:
    """nonzero writes how many there are; a view of that many rows has no shape before it runs."""
    code = (
        (Opcode.SHAPE, 0, 8),
        (Opcode.NEW, 1, 4, 2, 0, 1),
        (Opcode.NEW, 2, 4, 1, 1),
        (Opcode.KERNEL, 0, 3, 0, 1, 2),
        (Opcode.ITEM, 2, 2),
        (Opcode.VIEW, 3, 1, 3, 2, 2, 1, 1, 1),
        (Opcode.COPY, 3, 3),
        (Opcode.RETURN, 1, 3),
    )
    function = Function("main", 1, 1, 4, 4, code, (0, 6, 2, 0, 0, 1, 2, 1))
    kinds = (OperandType(torch.bool, 1), OperandType(torch.int64, 2, True), OperandType(torch.int64, 1, True))
    mask = Parameter("mask", "tensor", torch.bool, (6,))
    program = Program((function,), (mask,), Ref(0), kernels=(Kernel("nonzero", kinds),))
    found = trace(program, [(6,)])[0]
    nonzero, copy = found.work
    assert [operand.sizes for operand in nonzero.operands if operand is not None] == [(6,), (6, 1), (1,)]
    assert all(operand is not None and operand.sizes is None for operand in copy.operands)
    assert found.storage == 6 * 8 + 8


@pytest.mark.parametrize("read", [(Opcode.ELEMENT, 1, 0, 0), (Opcode.LEVELS, 2, 3, 1, 0, 1, 0, 0)])
def test_sizes_that_are_read_from_lists_and_trees_are_unknown(read: tuple[int, ...]) -> None:
    code = (read, (Opcode.NEW, 1, 0, 1, 1), (Opcode.COPY, 1, 1), (Opcode.RETURN, 0))
    given = Parameter("x", "tensor", torch.int64, (3,))
    (copy,) = trace(Program((Function("main", 1, 0, 4, 2, code),), (given,), ()), [(3,)])[0].work
    assert all(operand is not None and operand.sizes is None for operand in copy.operands)


def test_code_that_never_runs_may_compute_anything() -> None:
    square = (ShapeCode.LOAD, 0, ShapeCode.LOAD, 0, ShapeCode.MUL, ShapeCode.STORE, 0)
    words = (ShapeCode.PUSH, 10, ShapeCode.STORE, 0, *square * 200)
    code = ((Opcode.JUMP, 3), (Opcode.SHAPE, 0, len(words)), (Opcode.BIND, 0, 0, 5), (Opcode.RETURN, 0))
    given = Parameter("x", "tensor", torch.float32, (3,))
    assert trace(Program((Function("main", 1, 0, 1, 1, code, words),), (given,), ()), [(3,)])[0].work == []
