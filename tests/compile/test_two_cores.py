"""Two workers on two cores: that they are two, work at the same time, and cost little where they cannot."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.compile import compile_model
from taut.compile._parallel import Queues, apply_schedule, schedulable
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._undisturbed import TimedSession, time_sessions
from taut.runtime import Session
from taut.stats import quantile_interval

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs"),
]


class Branches(torch.nn.Module):
    """Two branches of equal convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = torch.nn.ModuleList(
            torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def sessions() -> tuple[Session, Session, torch.Tensor]:
    """The sequential program, and one that runs each branch on a worker of its own."""
    torch.manual_seed(0)
    x = torch.randn(1, 64, 14, 14)
    model = compile_model(Branches().eval(), (x,))
    steps = schedulable(model.lowered.blocks[0])
    second = [step for step in steps if "branches.1" in model.lowered.blocks[0].steps[step].label]  # pyright: ignore
    first = [step for step in steps if step not in second]
    lowered = apply_schedule(model.lowered, Queues((tuple(first), tuple(second))))
    return model.session, Kernels().session(lowered), x


def test_two_workers_take_little_more_than_half_the_time() -> None:
    sequential, parallel, x = sessions()
    timed = {"sequential": TimedSession(sequential, (x,), 1), "parallel": TimedSession(parallel, (x,), 2)}
    time_sessions(timed, 40, 20.0)
    if any(len(own.undisturbed) < 10 for own in timed.values()):
        pytest.skip("other processes left no two cores free for long enough")
    alone, together = (statistics.median(timed[name].undisturbed) for name in ("sequential", "parallel"))
    assert together < 0.65 * alone


def test_two_workers_are_the_caller_and_one_thread_more() -> None:
    script = """
        import os, sys
        sys.path[:0] = {path!r}
        from test_two_cores import sessions
        sequential, parallel, x = sessions()
        sequential(x)
        before = len(os.listdir("/proc/self/task"))
        for _ in range(5):
            parallel(x)
        print(len(os.listdir("/proc/self/task")) - before)
    """
    text = textwrap.dedent(script).format(path=[str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_busy_process_on_one_core_costs_the_parallel_program_little() -> None:
    sequential, parallel, x = sessions()
    busy = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", busy, str(max(os.sched_getaffinity(0)))])
    try:
        repeats = max(1, int(0.03 / sequential.time((x,), 5)))
        ratios = [parallel.time((x,), repeats) / sequential.time((x,), repeats) for _ in range(40)]
    finally:
        process.kill()
        process.wait()
    assert quantile_interval(ratios, 0.5).low < 1.2
