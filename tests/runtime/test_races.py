"""Tasks that may run at the same time and surely touch the same memory are refused when a program is loaded."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from assembly import F32, Op, Sh, flat, function, kernels, loaded, nested, shape, sizes, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import GraphError
from taut.graph import Ref
from taut.runtime import Program
from taut.runtime._races import check_races

ROWS, COLUMNS = 12, 8

Box = tuple[int, int, int, int]
"""First row, rows, first column, columns of a part of a matrix."""


def writers(boxes: list[Box], before: list[list[int]], *, arena: bool) -> Program:
    """Each task adds two parts of the input into a part of one matrix (ROWS, COLUMNS)."""
    slots = [ROWS, COLUMNS, 0, 4 * ROWS * COLUMNS, 1]
    code = [word for slot, value in enumerate(slots) for word in (Sh.PUSH, value, Sh.STORE, slot)]
    made: list[tuple[int, ...]] = (
        [(Op.ARENA, 3), (Op.ALLOC, 1, F32, 2, 2, 0, 1)] if arena else [(Op.NEW, 1, F32, 2, 0, 1)]
    )
    adds = []
    free = 5
    for number, (row, rows, column, columns) in enumerate(boxes):
        own = [row * COLUMNS + column, rows, columns]
        code += [word for slot, value in enumerate(own, free) for word in (Sh.PUSH, value, Sh.STORE, slot)]
        for target, base in ((2 + 2 * number, 1), (3 + 2 * number, 0)):
            made.append((Op.VIEW, target, base, free, 2, free + 1, free + 2, 1, 4))
        adds.append(flat(Op.KERNEL, 0, [3 + 2 * number, 3 + 2 * number, 2 + 2 * number]))
        free += 3
    tasks = [(1, number % 2, earlier) for number, earlier in enumerate(before)]
    region = flat(Op.PARALLEL, len(tasks), *itertools.chain(*tasks))
    main = function(
        shape(*code),
        *made,
        region,
        *adds,
        flat(Op.RETURN, [1]),
        takes=1,
        gives=1,
        registers=2 + 2 * len(boxes),
        slots=free,
        name="main",
    )
    return Program((main,), (tensor("x", ROWS, COLUMNS),), Ref(0), kernels=kernels("add"))


def elements(box: Box) -> set[tuple[int, int]]:
    row, rows, column, columns = box
    return set(itertools.product(range(row, row + rows), range(column, column + columns)))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    row, column = draw(st.integers(0, ROWS - 1)), draw(st.integers(0, COLUMNS - 1))
    return row, draw(st.integers(0, ROWS - row)), column, draw(st.integers(0, COLUMNS - column))


@given(st.lists(boxes(), min_size=2, max_size=5), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150)
def test_exactly_the_programs_whose_free_tasks_overlap_are_refused(
    library_path: Path, drawn: list[Box], choose: object, arena: bool
) -> None:
    before = [sorted(choose.sample(range(i), choose.randint(0, i))) for i in range(len(drawn))]  # pyright: ignore
    reach: list[set[int]] = []
    for own in before:
        reach.append(set(own).union(*(reach[other] for other in own)))
    clash = any(
        elements(drawn[a]) & elements(drawn[b]) for b in range(len(drawn)) for a in range(b) if a not in reach[b]
    )
    made = writers(drawn, before, arena=arena)
    if clash:
        with pytest.raises(GraphError, match="at the same time"):
            loaded(made, library_path)
    else:
        loaded(made, library_path)


def region(tasks: list[tuple[int, ...]], *adds: tuple[int, ...], first: tuple[int, ...] = ()) -> Program:
    before = first or sizes(2, 3)
    main = function(
        before,
        (Op.NEW, 1, F32, 2, 0, 1),
        (Op.NEW, 2, F32, 2, 0, 1),
        flat(Op.PARALLEL, len(tasks), *itertools.chain(*tasks)),
        *adds,
        flat(Op.RETURN, [1]),
        takes=1,
        gives=1,
        name="main",
    )
    return Program((main,), (tensor("x", "s0", "s1"),), Ref(0), kernels=kernels("add"))


SIDE_BY_SIDE: list[tuple[int, ...]] = [(1, 0, 0), (1, 1, 0)]
IN_TURN: list[tuple[int, ...]] = [(1, 0, 0), (1, 1, 1, 0)]


def test_a_result_that_another_task_reads_needs_an_order(library_path: Path) -> None:
    adds = flat(Op.KERNEL, 0, [0, 0, 1]), flat(Op.KERNEL, 0, [1, 1, 2])
    loaded(region(IN_TURN, *adds), library_path)
    with pytest.raises(GraphError, match="register 1"):
        loaded(region(SIDE_BY_SIDE, *adds), library_path)


def test_one_register_is_one_memory_even_if_its_size_is_not_known(library_path: Path) -> None:
    adds = flat(Op.KERNEL, 0, [0, 0, 1]), flat(Op.COPY, 1, 0)
    main = region(SIDE_BY_SIDE, *adds).functions[0]
    symbolic = function(
        (Op.BIND, 0, 0, 0),
        (Op.BIND, 1, 0, 1),
        *main.instructions[1:],
        takes=1,
        gives=1,
        name="main",
    )
    with pytest.raises(GraphError, match="register 1"):
        loaded(Program((symbolic,), (tensor("x", "s0", "s1"),), Ref(0), kernels=kernels("add")), library_path)


def test_tasks_may_read_the_same(library_path: Path) -> None:
    loaded(region(SIDE_BY_SIDE, flat(Op.KERNEL, 0, [0, 0, 1]), flat(Op.KERNEL, 0, [0, 0, 2])), library_path)


def test_enormous_sizes_are_refused_by_no_endless_computation(library_path: Path) -> None:
    squares = [word for _ in range(200) for word in (Sh.LOAD, 3, Sh.LOAD, 3, Sh.MUL, Sh.STORE, 3)]
    code = shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 3, Sh.STORE, 1, Sh.PUSH, 10, Sh.STORE, 3, *squares)
    adds = flat(Op.KERNEL, 0, [0, 0, 1]), flat(Op.KERNEL, 0, [0, 0, 2])
    loaded(region(SIDE_BY_SIDE, *adds, first=code), library_path)


@pytest.mark.parametrize("read", [(Op.ITEM, 4, 1), (Op.ELEMENT, 4, 1, 2), (Op.LEVELS, 5, 6, 4, 1, 1, 0, 0)])
def test_an_offset_that_is_read_at_run_time_is_not_known(library_path: Path, read: tuple[int, ...]) -> None:
    main = function(
        sizes(2, 3, 0, 48),
        read,
        (Op.ARENA, 3),
        (Op.ALLOC, 2, F32, 2, 2, 0, 1),
        (Op.ALLOC, 3, F32, 4, 2, 0, 1),
        flat(Op.PARALLEL, 2, *itertools.chain(*SIDE_BY_SIDE)),
        flat(Op.KERNEL, 0, [0, 0, 2]),
        flat(Op.KERNEL, 0, [0, 0, 3]),
        flat(Op.RETURN, [2]),
        takes=2,
        gives=1,
        name="main",
    )
    given = nested("tree") if read[0] == Op.LEVELS else tensor("offset", 1, dtype=torch.int64)
    loaded(Program((main,), (tensor("x", 2, 3), given), Ref(0), kernels=kernels("add")), library_path)


def test_places_beyond_all_memory_are_left_to_the_machine(library_path: Path) -> None:
    main = function(
        sizes(2, 3, 2**61, 1),
        (Op.NEW, 1, F32, 2, 0, 1),
        (Op.VIEW, 2, 1, 2, 2, 0, 1, 1, 3),
        (Op.VIEW, 3, 1, 2, 2, 0, 1, 1, 3),
        flat(Op.PARALLEL, 2, *itertools.chain(*SIDE_BY_SIDE)),
        flat(Op.KERNEL, 0, [0, 0, 2]),
        flat(Op.KERNEL, 0, [0, 0, 3]),
        flat(Op.RETURN, [1]),
        takes=1,
        name="main",
    )
    made = loaded(Program((main,), (tensor("x", 2, 3),), Ref(0), kernels=kernels("add")), library_path)
    with pytest.raises(GraphError, match="the view leaves"):
        made.session()(torch.ones(2, 3))


def columns(rows: int, count: int) -> Program:
    """Each task writes a column of one matrix, and nothing orders them."""
    code = sizes(rows, 1, count, *range(count))
    views = [(Op.VIEW, 2 + column, 1, 3 + column, 2, 0, 1, 2, 1) for column in range(count)]
    adds = [flat(Op.KERNEL, 0, [0, 0, 2 + column]) for column in range(count)]
    main = function(
        code,
        (Op.NEW, 1, F32, 2, 0, 2),
        *views,
        flat(Op.PARALLEL, count, *itertools.chain(*[(1, 0, 0)] * count)),
        *adds,
        flat(Op.RETURN, [1]),
        takes=1,
        registers=2 + count,
        slots=3 + count,
        name="main",
    )
    return Program((main,), (tensor("x", rows, 1),), Ref(0), kernels=kernels("add"))


def test_many_rows_are_compared_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    search = np.searchsorted

    def counted(rows: np.ndarray, places: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
        compared.append(len(rows))
        return search(rows, places, side=side)

    monkeypatch.setattr(np, "searchsorted", counted)
    check_races(columns(100_000, 300))
    assert 100 <= len(compared) <= 1000


def test_a_check_takes_little_memory() -> None:
    count = 30_000
    tasks = [flat(0, 0, [number - 1] if number else []) for number in range(count)]
    main = function(
        flat(Op.PARALLEL, count, *itertools.chain(*tasks)),
        *[(Op.CLEAR, 0)] * count,
        flat(Op.RETURN, []),
        gives=0,
        slots=2**20,
    )
    tracemalloc.start()
    check_races(Program((main,), (), ()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
