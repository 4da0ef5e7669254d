"""Calls from several threads, profiles, limits, interruption, and what memory is left."""

from __future__ import annotations

import _thread
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from assembly import F32, Op, Sh, flat, integer, kernels, loaded, program, session, shape, tensor

from taut.codegen import Operand, Recipe
from taut.errors import ArgumentError, GraphError, KernelError
from taut.runtime import Kernel, OperandType, Program, SharedLibrary, load
from taut.runtime._native import _vm


def chain(*names: str) -> Program:
    """x * x * ... over the named kernels, in two arena buffers; x is (n, 8)."""
    steps = []
    for position in range(len(names) - 1):
        target, offset = 1 + position % 2, 3 + position % 2
        steps += [
            flat(Op.ALLOC, target, F32, offset, [0, 1]),
            flat(Op.KERNEL, position, [0 if position == 0 else 3 - target, 0, target]),
        ]
    last = 0 if len(names) == 1 else 1 + (len(names) - 2) % 2
    return program(
        [tensor("x", "n", 8)],
        flat(Op.BIND, 0, 0, 0),
        shape(Sh.PUSH, 8, Sh.STORE, 1, Sh.LOAD, 0, Sh.PUSH, 32, Sh.MUL, Sh.STORE, 4),
        shape(Sh.LOAD, 4, Sh.PUSH, 2, Sh.MUL, Sh.STORE, 5),
        flat(Op.ARENA, 5),
        *steps,
        flat(Op.NEW, 3, F32, [0, 1]),
        flat(Op.KERNEL, len(names) - 1, [last, 0, 3]),
        flat(Op.RETURN, [3]),
        kernels=kernels(*names),
    )


def endless() -> Program:
    return program([], flat(Op.JUMP, 0), flat(Op.RETURN, []))


def in_threads(work: Callable[[int], None], count: int) -> None:
    problems: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # whatever it is, the test shows it
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def test_threads_share_a_session(library_path: Path) -> None:
    call = session(chain("add", "multiply", "add", "multiply", "add"), library_path)

    def work(number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        kept = []
        for rows in range(60):
            x = torch.randn(rows, 8, generator=generator)
            kept.append((x, call(x)[0]))
        for x, result in kept:
            assert torch.equal(result, ((x + x) * x + x) * x + x)

    in_threads(work, 4)


def test_threads_run_at_the_same_time(library_path: Path) -> None:
    """Each call returns only while another one is inside the same kernel."""
    meet = Kernel("meet", (), Recipe("map", (), outputs=0))
    call = session(program([], flat(Op.KERNEL, 0, []), flat(Op.RETURN, []), kernels=(meet,)), library_path)

    def work(number: int) -> None:
        for _ in range(3):
            assert call() == []

    in_threads(work, 2)


def test_a_profile_counts_each_instruction(library_path: Path) -> None:
    made = loaded(chain("add", "multiply"), library_path)
    entries = made.session().profile(torch.randn(4, 8))
    assert [entry.instruction for entry in entries] == list(range(len(made.program.functions[0].instructions)))
    assert all(entry.calls == 1 and entry.nanoseconds >= 0 and entry.function == 0 for entry in entries)


def test_a_profile_counts_the_turns_of_a_loop() -> None:
    made = program(
        [integer("n")],
        flat(Op.LOAD, 0, 0),
        flat(Op.BRANCH, 0, 4),
        shape(Sh.LOAD, 0, Sh.PUSH, 1, Sh.SUB, Sh.STORE, 0),
        flat(Op.JUMP, 1),
        flat(Op.RETURN, []),
    )
    calls = {entry.instruction: entry.calls for entry in session(made).profile(7)}
    assert calls == {0: 1, 1: 8, 2: 7, 3: 7, 4: 1}


def test_the_native_clock(library_path: Path) -> None:
    call = session(chain("nothing", "nothing"), library_path)
    assert 0 < call.time([torch.randn(4, 8)], 100) < 1
    with pytest.raises(ArgumentError, match="repeats"):
        call.time([torch.randn(4, 8)], 0)


def test_an_endless_program_can_be_interrupted() -> None:
    call = session(endless())
    started = threading.Event()

    def interrupt() -> None:
        started.wait()
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        started.set()
        call()
    thread.join()


def test_an_endless_program_stops_at_its_limit() -> None:
    with pytest.raises(GraphError, match="takes more than 1000 steps"):
        session(endless(), step_limit=1000)()


@pytest.mark.parametrize("value", [0, -1, 2**63])
def test_limits_are_positive(value: int) -> None:
    made = loaded(endless())
    with pytest.raises(ArgumentError, match="memory_limit"):
        made.session(memory_limit=value)
    with pytest.raises(ArgumentError, match="recursion_limit"):
        made.session(recursion_limit=value)
    with pytest.raises(ArgumentError, match="step_limit"):
        made.session(step_limit=value)


def test_results_keep_their_memory_and_give_it_back() -> None:
    call = session(program([integer("n")], flat(Op.LOAD, 0, 0), flat(Op.NEW, 1, F32, [0]), flat(Op.RETURN, [1])))
    gc.collect()
    before = _vm.live_bytes()
    (result,) = call(1 << 20)
    view = result[5:]
    del result
    assert _vm.live_bytes() >= before + (4 << 20)
    view.fill_(3)
    del view
    assert _vm.live_bytes() < before + (4 << 20)


def test_failed_calls_leave_nothing_behind(library_path: Path) -> None:
    call = session(chain("add", "fails"), library_path)
    x = torch.randn(5000, 8)

    def fail() -> None:
        with pytest.raises(KernelError):
            call(x)

    fail()
    gc.collect()
    before = _vm.live_bytes()
    for _ in range(20):
        fail()
    assert _vm.live_bytes() == before


def test_a_library_without_the_kernel_is_refused(library_path: Path, tmp_path: Path) -> None:
    made = chain("add")
    with pytest.raises(KernelError, match="has no function missing"):
        load(made, SharedLibrary(library_path, ["missing"]))
    with pytest.raises(KernelError, match="cannot be loaded"):
        load(made, SharedLibrary(tmp_path / "none.so", ["add"]))
    with pytest.raises(ArgumentError, match="symbols"):
        load(made, SharedLibrary(library_path, []))
    with pytest.raises(GraphError, match="is generated from a recipe"):
        load(made)


def test_kernels_take_at_most_64_operands(library_path: Path) -> None:
    recipe = Recipe("map", (Operand("float32", ()),) * 65, outputs=0)
    many = Kernel("many", (OperandType(torch.float32, 0),) * 65, recipe)
    with pytest.raises(GraphError, match="65 operands"):
        load(program([], flat(Op.RETURN, []), kernels=(many,)), SharedLibrary(library_path, {0: "nothing"}))
