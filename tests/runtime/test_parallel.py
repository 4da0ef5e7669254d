"""Regions that several workers run: the same results, in any order that the tasks allow."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Container
from pathlib import Path

import pytest
import torch
from assembly import F32, Op, Sh, flat, function, kernels, loaded, program, session, shape, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import GraphError, KernelError
from taut.graph import Ref
from taut.runtime import Program, Session, disassemble, regions_run_alone, worker_seconds

WORKERS = st.integers(1, 4)
needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")

Task = tuple[int, list[int]]
"""The worker, and the tasks before."""


def parallel(tasks: list[Task]) -> tuple[int, ...]:
    """A PARALLEL of tasks with one instruction each."""
    return flat(Op.PARALLEL, len(tasks), *itertools.chain(*((1, worker, before) for worker, before in tasks)))


def chains(tasks: list[Task], operands: list[tuple[int, int]], failing: Container[int] = ()) -> Program:
    """Each task adds two matrices (2, 3) into a register of its own: results of earlier tasks, or the input (-1)."""
    count = len(tasks)
    code = [Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 3, Sh.STORE, 1]
    made = [(Op.NEW, 1 + i, F32, 2, 0, 1) for i in range(count)]
    adds = [flat(Op.KERNEL, int(i in failing), [1 + a, 1 + b, 1 + i]) for i, (a, b) in enumerate(operands)]
    results = flat(Op.RETURN, [1 + i for i in range(count)])
    main = function(
        shape(*code), *made, parallel(tasks), *adds, results, takes=1, gives=count, registers=1 + count, name="main"
    )
    outputs = tuple(Ref(i) for i in range(count))
    return Program((main,), (tensor("x", 2, 3),), outputs, kernels=kernels("add", "fails"))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Task], list[tuple[int, int]]]:
    operands = [(draw(st.integers(-1, i - 1)), draw(st.integers(-1, i - 1))) for i in range(draw(st.integers(1, 24)))]
    workers = [draw(st.integers(0, 3)) for _ in operands]
    return [
        (worker, sorted({operand for operand in pair if operand >= 0}))
        for worker, pair in zip(workers, operands, strict=True)
    ], operands


@given(graphs(), WORKERS)
@settings(max_examples=60)
def test_any_graph_gives_what_one_worker_gives(
    library_path: Path, graph: tuple[list[Task], list[tuple[int, int]]], workers: int
) -> None:
    executable = loaded(chains(*graph), library_path)
    x = torch.randn(2, 3)
    expected = executable.session(workers=1)(x)
    run = executable.session(workers=workers, poison=True)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(run(x), expected, strict=True))


@needs_two
def test_two_tasks_run_at_the_same_time(library_path: Path) -> None:
    # The kernel waits until another call has come.
    made = program(
        [tensor("x", 2, 3)],
        shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 3, Sh.STORE, 1),
        (Op.NEW, 1, F32, 2, 0, 1),
        (Op.NEW, 2, F32, 2, 0, 1),
        parallel([(0, []), (1, [])]),
        flat(Op.KERNEL, 0, [0, 0, 1]),
        flat(Op.KERNEL, 0, [0, 0, 2]),
        flat(Op.RETURN, [0]),
        kernels=kernels("meet"),
    )
    spans = session(made, library_path).timeline(torch.ones(2, 3))
    assert sorted(span.worker for span in spans) == [0, 1]
    assert max(span.begin for span in spans) < min(span.end for span in spans)


@given(st.integers(0, 5))
@settings(max_examples=6)
def test_the_first_failure_in_the_code_is_reported(library_path: Path, first: int) -> None:
    failing = chains([(i % 2, []) for i in range(6)], [(-1, -1)] * 6, range(first, 6))
    run = loaded(failing, library_path).session(workers=2)
    for _ in range(5):
        with pytest.raises(KernelError, match=rf"instruction {8 + first} \(KERNEL\): kernel fails failed: error -3"):
            run(torch.ones(2, 3))


def test_calls_from_several_threads_share_the_workers(library_path: Path) -> None:
    run = loaded(chains([(i % 2, []) for i in range(8)], [(-1, -1)] * 8), library_path).session(workers=2)
    wrong: list[int] = []

    def calls(number: int) -> None:
        x = torch.full((2, 3), float(number))
        for _ in range(50):
            if not all(torch.equal(result, 2 * x) for result in run(x)):
                wrong.append(number)

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_two
def test_a_call_that_finds_the_workers_taken_runs_alone(library_path: Path) -> None:
    def meeting(*instructions: tuple[int, ...]) -> Session:
        made = program(
            [tensor("x", 2, 3)],
            shape(Sh.PUSH, 2, Sh.STORE, 0, Sh.PUSH, 3, Sh.STORE, 1),
            (Op.NEW, 1, F32, 2, 0, 1),
            (Op.NEW, 2, F32, 2, 0, 1),
            *instructions,
            flat(Op.RETURN, [0]),
            kernels=kernels("meet", "add"),
        )
        return session(made, library_path)

    # The first holds the workers until the second comes.
    meet, add = flat(Op.KERNEL, 0, [0, 0, 1]), flat(Op.KERNEL, 1, [0, 0, 2])
    holder, guest = meeting(parallel([(0, []), (1, [])]), meet, add), meeting(meet)
    other = loaded(chains([(0, []), (1, [])], [(-1, -1)] * 2), library_path).session(workers=2)
    x = torch.ones(2, 3)
    results = other(x)
    before = regions_run_alone()
    thread = threading.Thread(target=holder, args=(x,))
    thread.start()
    while thread.is_alive() and regions_run_alone() == before:
        results = other(x)
    guest(x)
    thread.join()
    assert regions_run_alone() > before
    assert all(torch.equal(result, x + x) for result in results)


@needs_two
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs threads in /proc")
def test_workers_rest_when_one_does_not_come(library_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
import torch
from assembly import loaded
from taut.runtime import regions_run_alone
from test_parallel import chains
two = loaded(chains([(0, []), (1, [])], [(-1, -1)] * 2), Path({str(library_path)!r})).session(workers=2)
x = torch.ones(2, 3)
two(x)
for thread in map(int, os.listdir("/proc/self/task")):  # the worker has to wait until the caller stops
    os.sched_setaffinity(thread, {{min(os.sched_getaffinity(0))}})
before = regions_run_alone()
assert all(torch.equal(result, x + x) for _ in range(1000) for result in two(x))
print(regions_run_alone() - before)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 500


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_has_workers_of_its_own(library_path: Path) -> None:
    x = torch.ones(2, 3)
    run = loaded(chains([(0, []), (1, [])], [(-1, -1)] * 2), library_path).session(workers=2)
    run(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(torch.equal(result, x + x) for result in run(x)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_two
def test_workers_at_rest_use_no_core(library_path: Path) -> None:
    run = loaded(chains([(i % 2, []) for i in range(8)], [(-1, -1)] * 8), library_path).session(workers=2)

    for _ in range(5):
        run(torch.ones(2, 3))
    used = []
    start = time.perf_counter()
    for elapsed in (0.05, 0.55):
        while time.perf_counter() < start + elapsed:
            pass
        used.append(worker_seconds())
    assert used[1] - used[0] < 0.01 * 0.5


@needs_two
def test_profile_and_timeline_tell_of_every_kernel(library_path: Path) -> None:
    run = loaded(chains([(i % 2, []) for i in range(8)], [(-1, -1)] * 8), library_path).session(workers=2)
    kernels_at = range(10, 18)
    times = {entry.instruction: entry for entry in run.profile(torch.ones(2, 3))}
    assert all(times[pc].calls == 1 for pc in kernels_at)
    spans = run.timeline(torch.ones(2, 3))
    assert sorted(span.instruction for span in spans) == list(kernels_at)
    for worker in (0, 1):
        own = [span for span in spans if span.worker == worker]
        assert all(a.begin <= a.end <= b.begin for a, b in itertools.pairwise(own))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((2, 1, 0, 0), "is cut short"),
        ((3, 1, 0, 0, 1, 0, 0, 1, 0, 0), "instruction 4 in a task"),
        ((2, 1, 0, 1, 0, 1, 0, 0), "task 1 does not exist"),
        ((2, 1, 0, 0, 1, 0, 1, 1), "task 1 does not exist"),
        ((2, 1, -1, 0, 1, 0, 0), "worker -1 does not exist"),
        ((2, 1, 256, 0, 1, 0, 0), "worker 256 does not exist"),
        ((2, -1, 0, 0, 1, 0, 0), "instruction -1 does not exist"),
        ((2, 9, 0, 0, 1, 0, 0), "instruction 9 does not exist"),
        ((2, 1, 0, 0, 1, 0, 0, 5), "has 9 words"),
        ((99, 1, 0, 0), "task 99 does not exist"),
    ],
)
def test_malformed_tasks_are_refused(library_path: Path, words: tuple[int, ...], problem: str) -> None:
    made = program(
        [tensor("x", 2, 3)],
        (Op.MOVE, 1, 0),
        (Op.PARALLEL, *words),
        flat(Op.KERNEL, 0, [0, 0, 1]),
        flat(Op.KERNEL, 0, [0, 0, 1]),
        flat(Op.RETURN, [0]),
        kernels=kernels("add"),
    )
    with pytest.raises(GraphError, match=problem):
        loaded(made, library_path)


def test_tasks_are_listed() -> None:
    listing = disassemble(chains([(0, []), (1, []), (0, [0, 1])], [(-1, -1), (-1, -1), (0, 1)]))
    assert "PARALLEL t0 1 on 0; t1 1 on 1; t2 1 on 0 after t0 t1" in listing
