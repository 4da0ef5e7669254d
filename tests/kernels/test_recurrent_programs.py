"""Recurrent and small linear layers as kernels of a program."""

from typing import Any

import pytest
import torch
from torch import Tensor

from taut.errors import GraphError, KernelError
from taut.graph import Ref
from taut.kernels import pack_recurrent, pack_small_linear, recurrent, small_linear
from taut.runtime import DTYPES, Function, Kernel, Opcode, OperandType, Parameter, Program, Session, load

F32 = torch.float32
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def session(name: str, inputs: list[Any], weights: list[Tensor], outputs: list[list[tuple[int, int]]]) -> Session:
    """A program of one kernel; an output's size is (input, dimension), or (-1, size) for a fixed one."""
    count = len(inputs) + len(weights) + len(outputs)
    code: list[tuple[int, ...]] = []
    shape_code: list[int] = []
    slots = 0
    for index in range(len(weights)):
        code.append((Opcode.CONSTANT, len(inputs) + index, index))
    for position, sizes in enumerate(outputs, len(inputs) + len(weights)):
        for source, dimension in sizes:
            if source < 0:
                code.append((Opcode.SHAPE, len(shape_code), len(shape_code) + 4))
                shape_code += [0, dimension, 2, slots]
            else:
                code.append((Opcode.BIND, slots, source, dimension))
            slots += 1
        places = range(slots - len(sizes), slots)
        code.append((Opcode.NEW, position, DTYPES.index(F32), len(sizes), *places))
    order = [0, *range(len(inputs), len(inputs) + len(weights)), *range(1, len(inputs))]
    order += range(len(inputs) + len(weights), count)
    code.append((Opcode.KERNEL, 0, count, *order))
    results = range(count - len(outputs), count)
    code.append((Opcode.RETURN, len(results), *results))
    ranks = [inputs[0], *(weight.dim() for weight in weights), *inputs[1:], *map(len, outputs)]
    operands = [OperandType(F32, rank, position >= count - len(outputs)) for position, rank in enumerate(ranks)]
    function = Function("main", len(inputs), len(results), count, slots, tuple(code), tuple(shape_code))
    parameters = [Parameter(f"x{i}", "tensor", F32, ("n",) * rank) for i, rank in enumerate(inputs)]
    tree = tuple(Ref(position) for position in range(len(results)))
    kernel = Kernel(name, tuple(operands))
    return load(Program((function,), tuple(parameters), tree, tuple(weights), (kernel,))).session(poison=True)


def recurrent_session(cell: str, reverse: bool) -> tuple[Session, Any]:
    torch.manual_seed(1)
    gates = GATES[cell]
    tensors = (
        torch.randn(gates * 20, 6),
        torch.randn(gates * 20, 20),
        torch.randn(gates * 20),
        torch.randn(gates * 20),
    )
    packed = pack_recurrent(cell, *tensors)
    weights = [packed.input_weights, packed.hidden_weights, packed.bias]
    weights += [] if packed.hidden_bias is None else [packed.hidden_bias]
    states = 2 if cell == "lstm" else 1
    name = (cell if gates > 1 else f"rnn_{cell}") + ("_reverse" if reverse else "")
    outputs = [[(0, 0), (0, 1), (1, 1)]] + [[(1, 0), (1, 1)]] * states
    return session(name, [3] + [2] * states, weights, outputs), packed


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", list(GATES))
def test_one_program_for_every_length(cell: str, reverse: bool) -> None:
    run, packed = recurrent_session(cell, reverse)
    for steps, batch in ((0, 2), (1, 1), (1, 3), (2, 1), (5, 1), (17, 2), (3, 0)):
        x = torch.randn(steps, batch, 6)
        states = [torch.randn(batch, 20) for _ in range(2 if cell == "lstm" else 1)]
        expected = [item for item in recurrent(x, packed, *states, reverse=reverse) if item is not None]
        for found, value in zip(run(x, *states), expected, strict=True):
            assert torch.equal(found, value)


def test_small_linear() -> None:
    packed = pack_small_linear(torch.randn(70, 5), torch.randn(70))
    for name in ("none", "relu", "tanh", "sigmoid"):
        suffix = "" if name == "none" else f"_{name}"
        run = session(f"small_linear{suffix}", [2], list(packed), [[(0, 0), (-1, 70)]])
        for rows in (0, 1, 7):
            x = torch.randn(rows, 5)
            assert torch.equal(run(x)[0], small_linear(x, *packed, 70, name))


def test_refusals() -> None:
    run, _ = recurrent_session("gru", False)
    with pytest.raises(KernelError, match="do not fit"):
        run(torch.randn(2, 1, 7), torch.randn(1, 20))
    with pytest.raises(KernelError, match="do not fit"):
        run(torch.randn(2, 2, 6), torch.randn(1, 20))
    with pytest.raises(GraphError, match="small_linear"):
        session("small_linear", [2], [torch.randn(1, 5, 4, 16)], [[(0, 0), (-1, 64)]])
