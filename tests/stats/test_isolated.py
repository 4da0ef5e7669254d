"""Arms in a process of their own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taut.errors import ArgumentError, MeasurementError
from taut.stats import Clock, IsolatedArm, compare, measure

WALL = Clock("wall", lambda: 0.0)


def build(mode: str = "work", pipe: str = "") -> Callable[[], object]:
    """The factory that the child imports; it also prints, which must not disturb the answers."""
    print("built", mode)

    def run() -> object:
        if mode == "raise":
            raise ValueError("no such weight")
        if mode == "die":
            print("out of cheese", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "interrupt":
            os.kill(os.getppid(), signal.SIGINT)
            return sum(itertools.repeat(0))
        if mode == "endless":
            Path(pipe).write_text(str(os.getpid()))
            return sum(itertools.repeat(0))
        if mode == "environment" and os.environ.get("TAUT_TEST_SETTING") != "three":
            raise ValueError("the environment did not arrive")
        return sum(range(1000))

    return run


def not_a_factory() -> int:
    return 3


HERE = f"{Path(__file__).resolve()}:build"


@pytest.fixture(scope="module")
def working() -> Iterator[IsolatedArm]:
    with IsolatedArm(HERE, "work") as arm:
        yield arm


def running(process: int) -> bool:
    """Whether a process exists and has not ended; one that only its parent has yet to notice has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_child_is_compared_like_any_arm(working: IsolatedArm) -> None:
    result = compare(working, lambda: sum(range(4000)), budget=3)
    assert result.verdict == "slower"


def test_child_is_timed_on_its_own_clock(working: IsolatedArm) -> None:
    assert measure(working, clock="process_cpu", min_time=0.02).median > 0


def test_environment_is_set_in_the_child_only() -> None:
    with IsolatedArm(build, "environment", env={"TAUT_TEST_SETTING": "three"}) as arm:
        assert arm.time_block(1, WALL) > 0
    assert "TAUT_TEST_SETTING" not in os.environ


def test_an_exception_in_the_child_arrives_with_its_message() -> None:
    with (
        IsolatedArm(HERE, "raise", name="mine") as arm,
        pytest.raises(MeasurementError, match="mine raised ValueError"),
    ):
        arm.time_block(1, WALL)


def test_a_child_that_dies_is_reported_with_its_last_words() -> None:
    with IsolatedArm(HERE, "die") as arm:
        with pytest.raises(MeasurementError, match=r"(?s)ended by signal 9.*out of cheese"):
            arm.time_block(1, WALL)
        with pytest.raises(MeasurementError, match="ended by signal 9"):
            arm.time_block(1, WALL)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:build", "ModuleNotFoundError"),
        (f"{Path(__file__).resolve()}:absent", "AttributeError"),
        (f"{Path(__file__).resolve()}:not_a_factory", "returned int, not a callable"),
    ],
)
def test_a_factory_that_cannot_be_used_is_reported_on_entering(reference: str, message: str) -> None:
    with pytest.raises(MeasurementError, match=message), IsolatedArm(reference):
        pass


def test_factories_that_no_other_process_can_find_are_refused() -> None:
    for factory in (lambda: build, "build"):
        with pytest.raises(ArgumentError, match="factory"):
            IsolatedArm(factory)
    with pytest.raises(ArgumentError, match="args"):
        IsolatedArm(HERE, object())


def test_the_arm_works_only_inside_its_with_statement() -> None:
    with pytest.raises(MeasurementError, match="not running"):
        IsolatedArm(HERE).time_block(1, WALL)


def test_leaving_early_ends_the_child() -> None:
    children: list[int] = []

    def leave() -> None:
        with IsolatedArm(HERE) as arm:
            assert arm._process is not None
            children.append(arm._process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert not running(children[0])


def test_an_interrupted_request_is_not_answered_to_the_next_one() -> None:
    with IsolatedArm(HERE, "interrupt") as arm:
        with pytest.raises(KeyboardInterrupt):
            arm.time_block(1, WALL)
        with pytest.raises(MeasurementError, match="not running"):
            arm.time_block(1, WALL)


def test_a_parent_that_is_killed_leaves_no_orphan_even_while_a_call_holds_the_interpreter_lock(tmp_path: Path) -> None:
    pipe = tmp_path / "started"
    os.mkfifo(pipe)
    script = (
        "from taut.stats import Clock, IsolatedArm\n"
        f"arm = IsolatedArm({HERE!r}, 'endless', {str(pipe)!r}).__enter__()\n"
        "arm.time_block(1, Clock('wall', lambda: 0.0))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    child = int(pipe.read_text())  # waits until the call has begun
    parent.kill()
    parent.wait()
    for _ in range(10**6):
        if not running(child):
            return
        os.sched_yield()
    os.kill(child, signal.SIGKILL)
    pytest.fail(f"process {child} outlived its parent")
