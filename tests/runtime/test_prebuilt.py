"""Prebuilt kernels against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from assembly import Op, Sh, flat, program, session, shape, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import GraphError, KernelError
from taut.runtime import DTYPES, Kernel, OperandType, Program, Session


def operand(dtype: torch.dtype, rank: int, *, written: bool = False) -> OperandType:
    return OperandType(dtype, rank, written)


def prebuilt(name: str, inputs: list[OperandType], outputs: list[tuple[torch.dtype, tuple[int, ...]]]) -> Session:
    """One kernel with outputs of given shapes; slots hold these one after another."""
    registers = range(len(inputs) + len(outputs))
    flat_sizes = [size for _, shape_ in outputs for size in shape_]
    instructions = [shape(*(w for slot, size in enumerate(flat_sizes) for w in (Sh.PUSH, size, Sh.STORE, slot)))]
    slot = 0
    for number, (dtype, extents) in enumerate(outputs):
        slots = list(range(slot, slot + len(extents)))
        slot += len(extents)
        instructions.append(flat(Op.NEW, len(inputs) + number, DTYPES.index(dtype), slots))
    written = [operand(dtype, len(extents), written=True) for dtype, extents in outputs]
    kernel = Kernel(name, (*inputs, *written))
    parameters = [tensor(f"x{i}", *["n"] * item.rank, dtype=item.dtype) for i, item in enumerate(inputs)]
    made: Program = program(
        parameters,
        *instructions,
        flat(Op.KERNEL, 0, list(registers)),
        flat(Op.RETURN, list(registers)[len(inputs) :]),
        kernels=(kernel,),
    )
    return session(made)


@pytest.mark.parametrize("extents", [(), (4,), (2, 3), (0,), (2, 0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_embedding(extents: tuple[int, ...], dtype: torch.dtype) -> None:
    table = torch.randn(7, 5).mul(9).to(dtype)
    index = torch.randint(0, 7, extents)
    types = [operand(dtype, 2), operand(torch.int64, len(extents))]
    call = prebuilt("embedding", types, [(dtype, (*extents, 5))])
    assert torch.equal(call(table, index)[0], torch.nn.functional.embedding(index, table))
    assert torch.equal(call(table.t().contiguous().t(), index)[0], torch.nn.functional.embedding(index, table))


@pytest.mark.parametrize("bad", [-1, 7, 2**62, -(2**63)])
def test_an_index_outside_the_table_is_refused(bad: int) -> None:
    call = prebuilt("embedding", [operand(torch.float32, 2), operand(torch.int64, 1)], [(torch.float32, (2, 5))])
    with pytest.raises(KernelError, match=f"index {bad} is outside a table of 7"):
        call(torch.zeros(7, 5), torch.tensor([3, bad]))
    with pytest.raises(KernelError, match="does not have the shape"):
        call(torch.zeros(7, 5), torch.tensor([3]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extents", [(9,), (3, 4), (2, 2, 3), (0, 3)])
def test_nonzero(dtype: torch.dtype, extents: tuple[int, ...]) -> None:
    x = torch.randint(-1, 2, extents).to(dtype)
    rank = len(extents)
    call = prebuilt("nonzero", [operand(dtype, rank)], [(torch.int64, (x.numel(), rank)), (torch.int64, (1,))])
    rows, count = call(x)
    assert torch.equal(rows[: int(count)], x.nonzero())


def test_nonzero_beyond_the_capacity_is_refused() -> None:
    call = prebuilt("nonzero", [operand(torch.bool, 1)], [(torch.int64, (2, 1)), (torch.int64, (1,))])
    with pytest.raises(KernelError, match="more elements"):
        call(torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_cast(source: torch.dtype, target: torch.dtype) -> None:
    x = torch.tensor([[0, 1, 2, 3], [100, 7, 0, 5]]).to(source)
    if source.is_floating_point and target.is_floating_point:
        x = torch.cat([x, torch.tensor([[float("inf"), -0.5, 1 / 3, 3e-6]]).to(source)])
    call = prebuilt("cast", [operand(source, 2)], [(target, tuple(x.shape))])
    assert torch.equal(call(x)[0], x.to(target))


@given(st.floats(width=32), st.sampled_from([torch.bfloat16, torch.float16]))
@settings(deadline=None)
def test_rounding_to_sixteen_bits(value: float, dtype: torch.dtype) -> None:
    call = prebuilt("cast", [operand(torch.float32, 0)], [(dtype, ())])
    result, expected = call(torch.tensor(value))[0], torch.tensor(value).to(dtype)
    assert torch.equal(result, expected) or (result.isnan() and expected.isnan())


@pytest.mark.parametrize("dtype", DTYPES)
def test_fill(dtype: torch.dtype) -> None:
    value = torch.tensor(3).to(dtype)
    call = prebuilt("fill", [operand(dtype, 0)], [(dtype, (2, 3))])
    assert torch.equal(call(value)[0], torch.full((2, 3), value.item(), dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
def test_arange(dtype: torch.dtype) -> None:
    call = prebuilt("arange", [operand(dtype, 0), operand(dtype, 0)], [(dtype, (5,))])
    assert torch.equal(
        call(torch.tensor(-3, dtype=dtype), torch.tensor(2, dtype=dtype))[0], torch.arange(-3, 7, 2).to(dtype)
    )


def test_argmax() -> None:
    x = torch.randint(0, 4, (6, 5, 7)).float()
    x[0, 0, 3] = x[1, 2, 0] = float("nan")
    call = prebuilt("argmax", [operand(torch.float32, 3)], [(torch.int64, (6, 5))])
    # torch does not say which of equal ones it takes; ours is the first
    largest = x.nan_to_num(99)
    first = (largest == largest.amax(-1, keepdim=True)).int().argmax(-1)
    assert torch.equal(call(x)[0], first)
    empty = prebuilt("argmax", [operand(torch.float32, 1)], [(torch.int64, ())])
    with pytest.raises(KernelError, match="row without elements"):
        empty(torch.zeros(0))


def suppressed(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """The definition, one pair at a time."""
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        corners = torch.maximum(boxes[i, :2], boxes[kept, :2]), torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        common = (corners[1] - corners[0]).clamp(min=0).prod(-1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        if not (common / (area[i] + area[kept] - common) > threshold).any():
            kept.append(i)
    return kept


@pytest.mark.parametrize("count", [0, 1, 50])
def test_nms(count: int) -> None:
    corner = torch.rand(count, 2)
    boxes, scores = torch.cat([corner, corner + torch.rand(count, 2)], 1), torch.rand(count)
    f32 = torch.float32
    types = [operand(f32, 2), operand(f32, 1), operand(f32, 0)]
    call = prebuilt("nms", types, [(torch.int64, (count,)), (torch.int64, (1,))])
    kept, number = call(boxes, scores, torch.tensor(0.4))
    assert kept[: int(number)].tolist() == suppressed(boxes, scores, torch.tensor(0.4).item())


REFUSED: dict[str, list[Any]] = {
    "embedding": [operand(torch.float32, 2), operand(torch.int32, 1), operand(torch.float32, 2, written=True)],
    "nonzero": [operand(torch.bool, 1), operand(torch.int64, 2), operand(torch.int64, 1)],
    "cast": [operand(torch.bool, 1), operand(torch.int64, 2, written=True)],
    "fill": [operand(torch.bool, 1), operand(torch.bool, 2, written=True)],
    "arange": [operand(torch.bool, 0), operand(torch.bool, 0), operand(torch.bool, 1, written=True)],
    "argmax": [operand(torch.float32, 0), operand(torch.int64, 0, written=True)],
    "nms": [operand(torch.float32, 2)],
    "sort": [],
}


@pytest.mark.parametrize("name", REFUSED)
def test_operands_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(GraphError, match=f"prebuilt kernel {name}"):
        session(program([], flat(Op.RETURN, []), kernels=(Kernel(name, tuple(REFUSED[name])),)))
