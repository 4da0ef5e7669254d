"""Each instruction does what `Opcode` says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from assembly import F32, I64, Op, Sh, flat, integer, kernels, program, session, shape, sizes, tensor

from taut.errors import GraphError, GuardError, KernelError
from taut.graph import Builder, TensorType
from taut.runtime import DTYPES, Opcode


def test_kernels_run_in_the_arena_and_results_outlive_it(library_path: Path) -> None:
    made = program(
        [tensor("x", "n", 4), tensor("y", "n", 4)],
        flat(Op.BIND, 0, 0, 0),
        shape(Sh.PUSH, 4, Sh.STORE, 1, Sh.LOAD, 0, Sh.PUSH, 16, Sh.MUL, Sh.STORE, 3),
        flat(Op.ARENA, 3),
        flat(Op.ALLOC, 2, F32, 2, [0, 1]),
        flat(Op.KERNEL, 0, [0, 1, 2]),
        flat(Op.NEW, 3, F32, [0, 1]),
        flat(Op.KERNEL, 1, [2, 0, 3]),
        flat(Op.RETURN, [2, 3]),
        kernels=kernels("add", "multiply"),
    )
    call = session(made, library_path)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for rows in (0, 1, 2, 7, 1000, 3):
        x, y = torch.randn(rows, 4), torch.randn(rows, 4)
        total, product = call(x, y)
        assert torch.equal(total, x + y)
        assert torch.equal(product, (x + y) * x)
        kept.append((total, x + y))
    assert all(torch.equal(result, expected) for result, expected in kept)


def test_views_share_memory_and_stay_inside_it() -> None:
    made = program(
        [tensor("x", 4, 6)],
        sizes(2, 3, 6, 2, 7),
        flat(Op.VIEW, 1, 0, 4, 2, 0, 1, 2, 3),
        flat(Op.RETURN, [1]),
    )
    x = torch.randn(4, 6)
    (result,) = session(made)(x)
    assert torch.equal(result, x.as_strided((2, 3), (6, 2), 7))


@pytest.mark.parametrize(
    ("extents", "strides", "offset"),
    [((2, 3), (6, 2), 14), ((5,), (6,), 0), ((1,), (1,), -1), ((2,), (-1,), 0), ((-1,), (1,), 0), ((2**40,), (0,), 0)],
)
def test_a_view_outside_its_base_is_refused(extents: tuple[int, ...], strides: tuple[int, ...], offset: int) -> None:
    values = (*extents, *strides, offset)
    rank = len(extents)
    view = flat(Op.VIEW, 1, 0, 2 * rank, rank, *range(2 * rank))
    made = program([tensor("x", 4, 6)], sizes(*values), view, flat(Op.RETURN, [1]))
    with pytest.raises(GraphError, match=r"main, instruction 1 \(VIEW\).*leaves float32 \(4, 6\)"):
        session(made)(torch.zeros(4, 6))


def test_copy_between_strides() -> None:
    made = program(
        [tensor("x", 3, 5), tensor("y", 3, 5)],
        sizes(3, 5, 10, 1, 0, 5, 2),
        flat(Op.STORE, 4, 2),
        flat(Op.NEW, 2, F32, [0, 2]),
        flat(Op.VIEW, 3, 2, 4, 2, 0, 1, 2, 3),
        flat(Op.COPY, 3, 0),
        flat(Op.VIEW, 3, 2, 5, 2, 0, 1, 2, 3),
        flat(Op.COPY, 3, 1),
        flat(Op.RETURN, [2]),
    )
    x, y = torch.randn(3, 5), torch.randn(5, 3).t()
    assert torch.equal(session(made)(x, y)[0], torch.cat([x, y], 1))


def test_integers_items_and_branches() -> None:
    # the absolute value of the difference of an integer and a tensor's item
    made = program(
        [integer("n"), tensor("x", dtype=torch.int32)],
        flat(Op.LOAD, 0, 0),
        flat(Op.ITEM, 1, 1),
        shape(Sh.LOAD, 0, Sh.LOAD, 1, Sh.LT, Sh.STORE, 3),
        flat(Op.BRANCH, 3, 6),
        shape(Sh.LOAD, 1, Sh.LOAD, 0, Sh.SUB, Sh.STORE, 2),
        flat(Op.JUMP, 7),
        shape(Sh.LOAD, 0, Sh.LOAD, 1, Sh.SUB, Sh.STORE, 2),
        flat(Op.STORE, 2, 2),
        flat(Op.RETURN, [2]),
    )
    call = session(made)
    assert call(5, torch.tensor(2, dtype=torch.int32)) == [3]
    assert call(2, torch.tensor(5, dtype=torch.int32)) == [3]


def test_a_loop() -> None:
    # the sum of 1 to n
    made = program(
        [integer("n")],
        flat(Op.LOAD, 0, 0),
        flat(Op.BRANCH, 0, 4),
        shape(Sh.LOAD, 0, Sh.LOAD, 1, Sh.ADD, Sh.STORE, 1, Sh.LOAD, 0, Sh.PUSH, 1, Sh.SUB, Sh.STORE, 0),
        flat(Op.JUMP, 1),
        flat(Op.STORE, 1, 1),
        flat(Op.RETURN, [1]),
    )
    assert session(made)(1000) == [500500]
    with pytest.raises(GraphError, match="more than 100 steps"):
        session(made, step_limit=100)(1000)
    assert session(made, step_limit=2001)(1000) == [500500]


def test_a_check_says_which_size_is_wrong() -> None:
    made = program(
        [tensor("x", "n")],
        flat(Op.BIND, 3, 0, 0),
        shape(Sh.LOAD, 3, Sh.PUSH, 4, Sh.LE, Sh.STORE, 4),
        flat(Op.CHECK, 4, 0),
        flat(Op.RETURN, [0]),
        messages=("x: n is {3}, at most {{4}} {999}",),
    )
    assert session(made)(torch.zeros(4))[0].shape == (4,)
    with pytest.raises(GuardError) as caught:
        session(made)(torch.zeros(7))
    assert caught.value.message == "x: n is 7, at most {0} {999}"


def test_fill_writes_a_size_to_a_tensor() -> None:
    for dtype in DTYPES:
        made = program(
            [tensor("x", "n")],
            flat(Op.BIND, 0, 0, 0),
            flat(Op.NEW, 1, DTYPES.index(dtype), [0]),
            flat(Op.FILL, 1, 0),
            flat(Op.RETURN, [1]),
        )
        assert torch.equal(session(made)(torch.zeros(5))[0], torch.full((5,), 5, dtype=dtype))


def test_memory_beyond_the_limit_is_refused() -> None:
    made = program([integer("n")], flat(Op.LOAD, 0, 0), flat(Op.NEW, 1, F32, [0]), flat(Op.RETURN, [1]))
    assert session(made, memory_limit=1 << 30)(10)[0].shape == (10,)
    with pytest.raises(KernelError, match=r"main, instruction 1 \(NEW\): memory is exhausted"):
        session(made, memory_limit=1 << 30)(2**29)
    for size in (-1, 2**31, 2**62):
        with pytest.raises(GraphError, match="negative or too large"):
            session(made)(size)


def test_an_arena_beyond_the_limit_is_refused() -> None:
    made = program([integer("n")], flat(Op.LOAD, 0, 0), flat(Op.ARENA, 0), flat(Op.RETURN, []))
    assert session(made)(1000) == []
    for size in (2**40, 2**62, 2**63 - 1):
        with pytest.raises(KernelError, match="memory is exhausted"):
            session(made, memory_limit=1 << 30)(size)
    with pytest.raises(GraphError, match="the size is -1"):
        session(made)(-1)


@pytest.mark.parametrize(("offset", "size"), [(64, 1), (0, 17), (4, 16), (-4, 1), (2, 1), (2**62, 1)])
def test_a_tensor_outside_the_arena_is_refused(offset: int, size: int) -> None:
    made = program(
        [],
        sizes(64, offset, size),
        flat(Op.ARENA, 0),
        flat(Op.ALLOC, 0, F32, 1, [2]),
        flat(Op.RETURN, [0]),
    )
    with pytest.raises(GraphError, match="not in the arena, or not aligned"):
        session(made)()


def test_poison_shows_what_was_never_written() -> None:
    made = program(
        [],
        sizes(64, 0, 4),
        flat(Op.ARENA, 0),
        flat(Op.ALLOC, 0, F32, 1, [2]),
        flat(Op.NEW, 1, F32, [2]),
        flat(Op.RETURN, [0, 1]),
    )
    assert all(math.isnan(value) for result in session(made, poison=True)() for value in result.tolist())


def test_a_fallback_runs_on_aten() -> None:
    builder = Builder()
    kind = TensorType((4,), torch.float32)
    x, y = builder.input("x.0", kind), builder.input("x.1", kind)
    total = builder.add("aten.add.Tensor", x, y, outputs=kind)
    graph = builder.finish({"sum": total, "same": x, "twice": builder.add("aten.mul.Tensor", total, 2, outputs=kind)})
    made = program(
        [tensor("x", 4)],
        flat(Op.FALLBACK, 0, [0, 0], [0, 1, 2]),
        flat(Op.RETURN, [0, 1, 2]),
        fallbacks=(graph,),
    )
    x = torch.randn(4)
    results = session(made)(x)
    kept = [result.clone() for result in results]
    session(made)(torch.zeros(4))
    assert torch.equal(torch.stack(results), torch.stack(kept))
    assert torch.equal(results[0], x + x)
    assert torch.equal(results[1], x)
    assert torch.equal(results[2], 4 * x)


def test_an_error_of_a_fallback_is_its_own() -> None:
    builder = Builder()
    graph = builder.finish(builder.input("x", TensorType((4,), torch.float32)))
    made = program([tensor("x", "n")], flat(Op.FALLBACK, 0, [0], [1]), flat(Op.RETURN, [1]), fallbacks=(graph,))
    with pytest.raises(GuardError, match="is 5") as caught:
        session(made)(torch.zeros(5))
    # no frame keeps a tensor in the arena
    assert caught.value.__context__ is None
    assert caught.traceback[-1].locals["inputs"] == []


def test_devices_meet_by_transfer_only(library_path: Path) -> None:
    parts: dict[str, Any] = {"kernels": kernels("add")}
    start = sizes(2, 3)
    parameters = [tensor("x", 2, 3), tensor("y", 2, 3)]
    across = [
        flat(Op.TRANSFER, 2, 0, 1),
        flat(Op.TRANSFER, 3, 1, 1),
        flat(Op.NEW, 4, F32, [0, 1]),
        flat(Op.PLACE, 4, 1),
        flat(Op.KERNEL, 0, [2, 3, 4]),
        flat(Op.TRANSFER, 5, 4, 0),
        flat(Op.RETURN, [5]),
    ]
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(session(program(parameters, start, *across, **parts), library_path)(x, y)[0], x + y)
    for left_out, problem in ((1, "on device 0"), (3, "on device 0"), (5, "result 0 is nothing")):
        rest = [item for position, item in enumerate(across) if position != left_out]
        if left_out == 1:
            rest[3] = flat(Op.KERNEL, 0, [2, 1, 4])
        with pytest.raises(GraphError, match=problem):
            session(program(parameters, start, *rest, **parts), library_path)(x, y)
    hidden = program([tensor("x", 2)], flat(Op.TRANSFER, 0, 0, 1), flat(Op.MAKE, 1, 0, [0]), flat(Op.RETURN, [1]))
    with pytest.raises(GraphError, match="a result is on device 1"):
        session(hidden)(torch.zeros(2))
    with pytest.raises(GraphError, match="result 0 is on device 1"):
        session(program([tensor("x", 2)], flat(Op.TRANSFER, 0, 0, 1), flat(Op.RETURN, [0])))(torch.zeros(2))


def test_every_instruction_names_where_it_fails(library_path: Path) -> None:
    made = program(
        [tensor("x", 2, 3)],
        flat(Op.KERNEL, 0, [0, 0, 0]),
        flat(Op.RETURN, [0]),
        kernels=kernels("fails"),
    )
    with pytest.raises(GraphError, match="operand 2 of kernel fails is an input, a constant"):
        session(made, library_path)(torch.zeros(2, 3))
    made = program(
        [tensor("x", 2, 3)],
        sizes(2, 3),
        flat(Op.NEW, 1, F32, [0, 1]),
        flat(Op.KERNEL, 0, [0, 0, 1]),
        flat(Op.RETURN, [1]),
        kernels=kernels("fails"),
    )
    with pytest.raises(KernelError, match=r"main, instruction 2 \(KERNEL\): kernel fails failed: error -3"):
        session(made, library_path)(torch.zeros(2, 3))


READS_NOTHING = {
    Opcode.VIEW: (1, 5, 0, 0),
    Opcode.BIND: (0, 5, 0),
    Opcode.ITEM: (0, 5),
    Opcode.LOAD: (0, 5),
    Opcode.FIELD: (1, 5, 0),
    Opcode.TAG: (0, 5),
    Opcode.LENGTH: (0, 5),
    Opcode.APPEND: (1, 5, 0),
    Opcode.COPY: (0, 5),
    Opcode.TRANSFER: (1, 5, 0),
    Opcode.FILL: (5, 0),
    Opcode.LEVELS: (1, 2, 0, 5, 0),
    Opcode.ELEMENT: (0, 5, 0),
    Opcode.STACK: (5, 0, 0, 0),
}


@pytest.mark.parametrize("opcode", READS_NOTHING)
def test_an_empty_register_is_refused(opcode: Opcode) -> None:
    made = program([tensor("x", 2)], flat(opcode, *READS_NOTHING[opcode]), flat(Op.RETURN, [0]))
    with pytest.raises(GraphError, match=rf"\({opcode.name}\): register 5 holds nothing"):
        session(made)(torch.zeros(2))


def test_items_are_single_integers() -> None:
    made = program([tensor("x", "n", dtype=torch.int64)], flat(Op.ITEM, 0, 0), flat(Op.RETURN, []))
    assert session(made)(torch.zeros(1, dtype=torch.int64)) == []
    with pytest.raises(GraphError, match="one integer or bool"):
        session(made)(torch.zeros(2, dtype=torch.int64))
    assert DTYPES.index(torch.int64) == I64
