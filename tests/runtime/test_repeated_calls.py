"""Calls with the sizes of the last do less, and give the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from assembly import F32, Op, Sh, flat, function, integer, kernels, loaded, nested, program, session, shape, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import GraphError, GuardError, KernelError
from taut.graph import Ref
from taut.runtime import Object, Program
from taut.runtime._native import _vm

BIAS = torch.arange(8.0).reshape(1, 8)


def polynomial(*names: str) -> Program:
    """(x + bias) * x * 2, first row, and the number of rows times k; at most 8 rows, and k is counted in a loop."""
    return program(
        [tensor("x", "n", 8), integer("k")],
        flat(Op.BIND, 0, 0, 0),
        flat(Op.LOAD, 1, 1),
        shape(Sh.PUSH, 8, Sh.STORE, 2, Sh.LOAD, 0, Sh.PUSH, 32, Sh.MUL, Sh.STORE, 4),
        shape(Sh.LOAD, 4, Sh.PUSH, 2, Sh.MUL, Sh.STORE, 5, Sh.PUSH, 1, Sh.STORE, 6),
        shape(Sh.LOAD, 0, Sh.LOAD, 2, Sh.LE, Sh.STORE, 7),
        flat(Op.CHECK, 7, 0),
        flat(Op.ARENA, 5),
        flat(Op.ALLOC, 2, F32, 3, [0, 2]),
        flat(Op.ALLOC, 3, F32, 4, [0, 2]),
        flat(Op.CONSTANT, 4, 0),
        (Op.VIEW, 5, 4, 3, 2, 0, 2, 3, 6),  # a row for each of x
        flat(Op.KERNEL, 0, [0, 5, 2]),
        flat(Op.KERNEL, 1, [2, 0, 3]),
        flat(Op.NEW, 6, F32, [0, 2]),
        flat(Op.KERNEL, 2, [3, 3, 6]),
        (Op.VIEW, 7, 6, 3, 2, 6, 2, 2, 6),
        shape(Sh.LOAD, 8, Sh.LOAD, 1, Sh.LT, Sh.STORE, 9),  # the loop starts with 0 in slots 8 and 10
        flat(Op.BRANCH, 9, 20),
        shape(Sh.LOAD, 8, Sh.PUSH, 1, Sh.ADD, Sh.STORE, 8, Sh.LOAD, 10, Sh.LOAD, 0, Sh.ADD, Sh.STORE, 10),
        flat(Op.JUMP, 16),
        flat(Op.STORE, 8, 10),
        flat(Op.RETURN, [6, 7, 8]),
        constants=(BIAS,),
        kernels=kernels(*names),
        messages=("{0} rows are too many",),
    )


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=2, max_size=12))
@settings(max_examples=40)
def test_any_order_of_sizes_gives_what_each_gives_alone(library_path: Path, calls: list[tuple[int, int]]) -> None:
    run = session(polynomial("add", "multiply", "add"), library_path, poison=True)
    kept = []
    for rows, k in calls:
        x = torch.randn(rows, 8)
        kept.append((x, k, run(x, k)))
    for x, k, (whole, first, count) in kept:
        expected = 2 * ((x + BIAS) * x)
        assert torch.equal(whole, expected)
        assert torch.equal(first, expected[:1])
        assert count == len(x) * k


def test_what_follows_from_sizes_is_done_once(library_path: Path) -> None:
    run = session(polynomial("add", "multiply", "add"), library_path)

    def instructions(rows: int, k: int) -> list[int]:
        return [entry.instruction for entry in run.profile(torch.ones(rows, 8), k)]

    everything = list(range(22))
    assert instructions(2, 1) == everything
    assert instructions(2, 1) == everything[11:]
    assert instructions(3, 1) == everything
    assert instructions(3, 2) == everything
    assert instructions(3, 2) == everything[11:]


def test_a_call_after_one_that_failed(library_path: Path) -> None:
    good, bad = polynomial("add", "multiply", "add"), polynomial("add", "multiply", "fails")
    run, failing = session(good, library_path), session(bad, library_path)
    x = torch.randn(2, 8)
    for _ in range(3):
        with pytest.raises(GuardError, match="9 rows are too many"):
            run(torch.randn(9, 8), 1)
        assert run(x, 1)[2] == 2
        with pytest.raises(KernelError, match=r"instruction 14 \(KERNEL\)"):
            failing(x, 1)


def test_other_sizes_are_checked_again(library_path: Path) -> None:
    run = session(polynomial("add", "multiply", "add"), library_path)
    run(torch.randn(8, 8), 1)
    with pytest.raises(GuardError, match="9 rows are too many"):
        run(torch.randn(9, 8), 1)


def test_parallel_tasks_of_repeated_calls(library_path: Path) -> None:
    made = program(
        [tensor("x", 2, 3)],
        shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 3, Sh.STORE, 1, Sh.PUSH, 64, Sh.STORE, 3, Sh.PUSH, 128, Sh.STORE, 4),
        flat(Op.ARENA, 4),
        flat(Op.ALLOC, 1, F32, 2, [0, 1]),
        flat(Op.ALLOC, 2, F32, 3, [0, 1]),
        flat(Op.NEW, 3, F32, [0, 1]),
        flat(Op.PARALLEL, 3, 1, 0, [], 1, 1, [], 1, 0, [0, 1]),
        flat(Op.KERNEL, 0, [0, 0, 1]),
        flat(Op.KERNEL, 1, [0, 0, 2]),
        flat(Op.KERNEL, 0, [1, 2, 3]),
        flat(Op.RETURN, [3]),
        kernels=kernels("add", "multiply"),
    )
    executable = loaded(made, library_path)
    for workers in (1, 2):
        run = executable.session(workers=workers, poison=True)
        for _ in range(20):
            x = torch.randn(2, 3)
            assert torch.equal(run(x)[0], 2 * x + x * x)


def test_a_register_read_before_it_is_written_is_refused_each_time(library_path: Path) -> None:
    made = program(
        [tensor("x", 2, 3)],
        shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 3, Sh.STORE, 1, Sh.PUSH, 64, Sh.STORE, 3),
        flat(Op.ARENA, 3),
        flat(Op.MOVE, 2, 1),
        flat(Op.STORE, 3, 4),  # 0 in each call
        shape(Sh.PUSH, 1, Sh.STORE, 4),
        flat(Op.ALLOC, 1, F32, 2, [0, 1]),
        flat(Op.RETURN, [2, 3]),
    )
    run = session(made)
    for _ in range(3):
        with pytest.raises(GraphError, match="result 0 is nothing"):
            run(torch.ones(2, 3))


def test_a_slot_read_before_it_is_written_holds_0_each_time() -> None:
    made = program([], flat(Op.STORE, 0, 0), shape(Sh.PUSH, 1, Sh.STORE, 0), flat(Op.RETURN, [0]))
    run = session(made)
    assert [run() for _ in range(3)] == [[0]] * 3


def test_numbers_that_are_no_registers() -> None:
    last = (1 << 20) - 1
    length = function(
        flat(Op.LENGTH, last, 0), flat(Op.STORE, 0, last), flat(Op.RETURN, [0]), takes=1, registers=1, slots=last + 1
    )
    run = session(Program((length,), (nested("x"),), (Ref(0),)))
    assert [run(Object(0, [1] * count)) for count in (2, 2, 3)] == [[2], [2], [3]]
    empty = function(flat(Op.PARALLEL, 0), flat(Op.RETURN, []), gives=0, registers=0, slots=0)
    assert session(Program((empty,), (), ()))() == []


def test_a_second_arena_is_apart_from_the_first_each_time() -> None:
    made = program(
        [],
        shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 64, Sh.STORE, 2, Sh.PUSH, 128, Sh.STORE, 3),
        shape(Sh.PUSH, 7, Sh.STORE, 4, Sh.PUSH, 8, Sh.STORE, 5),
        flat(Op.ARENA, 2),
        flat(Op.ALLOC, 0, F32, 1, [0]),
        flat(Op.ARENA, 3),
        flat(Op.ALLOC, 1, F32, 1, [0]),
        flat(Op.FILL, 0, 4),
        flat(Op.FILL, 1, 5),
        flat(Op.RETURN, [0, 1]),
    )
    run = session(made)
    for _ in range(3):
        first, second = run()
        assert torch.equal(first, torch.full((2,), 7.0))
        assert torch.equal(second, torch.full((2,), 8.0))


def test_an_arena_whose_size_depends_on_data_leaves_none_behind() -> None:
    made = program(
        [tensor("n", dtype=torch.int64)],
        shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 7, Sh.STORE, 3),
        flat(Op.ITEM, 2, 0),
        flat(Op.ARENA, 2),
        flat(Op.ALLOC, 1, F32, 1, [0]),
        flat(Op.FILL, 1, 3),
        flat(Op.RETURN, [1]),
    )
    run = session(made, memory_limit=_vm.live_bytes() + (64 << 20))
    for megabytes in range(1, 17):  # 136 together
        assert torch.equal(run(torch.tensor(megabytes << 20))[0], torch.full((2,), 7.0))


def test_trees_of_other_sizes() -> None:
    made = program(
        [nested("tree"), tensor("x", "n")],
        flat(Op.LENGTH, 0, 0),
        flat(Op.BIND, 1, 1, 0),
        flat(Op.STORE, 2, 0),
        flat(Op.STORE, 3, 1),
        flat(Op.RETURN, [2, 3]),
    )
    run = session(made)
    for fields, length in ((2, 3), (4, 3), (4, 5), (4, 5)):
        assert run(Object(0, [1] * fields), torch.ones(length)) == [fields, length]


def test_a_program_that_calls_itself() -> None:
    # The sum of 1 to n.
    main = function(
        flat(Op.LOAD, 0, 0),
        shape(Sh.PUSH, 0, Sh.LOAD, 0, Sh.LT, Sh.STORE, 1),
        shape(Sh.LOAD, 0, Sh.PUSH, 1, Sh.SUB, Sh.STORE, 2),
        flat(Op.BRANCH, 1, 8),
        flat(Op.STORE, 1, 2),
        flat(Op.CALL, 0, [1], [2]),
        flat(Op.LOAD, 3, 2),
        shape(Sh.LOAD, 0, Sh.LOAD, 3, Sh.ADD, Sh.STORE, 4),
        flat(Op.STORE, 3, 4),
        flat(Op.RETURN, [3]),
        takes=1,
        name="main",
    )
    run = session(Program((main,), (integer("n"),), (Ref(0),)))
    assert [run(n) for n in (4, 4, 2, 2, 0, 4)] == [[10], [10], [3], [3], [0], [10]]
