"""Parallel programs while another process keeps one core busy, beside the sequential program under the same load.

The parallel program splits steps for two workers. Both take turns in blocks of wall-clock time, at first alone, then
beside a process that never rests, pinned to the last CPU. The ratio is the median over the rounds of the parallel time
by the sequential time, with a 95 % interval: with the competitor it should stay below 1.2.

    python -m benchmarks.oversubscription [--quick] [--only CASE...] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._branchy_networks import NETWORKS, network
from taut.compile import compile_model
from taut.compile._parallel import apply_schedule
from taut.compile.scheduling._candidates import candidates
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._steps import step_seconds
from taut.runtime import Session
from taut.stats import Interval, fingerprint, quantile_interval, quietness

WORKERS = 2
BLOCK = 0.03  # seconds, several time slices of the kernel
BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def sessions(name: str) -> tuple[dict[str, Session], Sequence[Any]]:
    """A network's programs, and the inputs of a call."""
    module, shape = network(name, "")
    inputs = (torch.randn(shape),)
    model = compile_model(module, inputs)
    durations = step_seconds(model.lowered, model.session, inputs)
    schedule = candidates(model.lowered.blocks[0], durations, WORKERS)["split"]
    lowered = apply_schedule(model.lowered, schedule)
    return {"sequential": model.session, "parallel": Kernels().session(lowered)}, inputs


@contextlib.contextmanager
def competitor() -> Iterator[None]:
    """A process that keeps the last CPU busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(max(os.sched_getaffinity(0)))])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(made: dict[str, Session], inputs: Sequence[Any], rounds: int) -> tuple[dict[str, list[float]], Interval]:
    """Seconds of a call by round, and the ratio of the parallel to the sequential ones."""
    repeats = {name: max(1, int(BLOCK / session.time(inputs, 5))) for name, session in made.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    draw = random.Random(0)
    order = list(made)
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            times[name].append(made[name].time(inputs, repeats[name]))
    ratios = [parallel / own for parallel, own in zip(times["parallel"], times["sequential"], strict=True)]
    return times, quantile_interval(ratios, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, help="these cases")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = quietness()
    print(before)
    rows = []
    for name in options.only:
        made, inputs = sessions(name)
        for load, beside in (("alone", contextlib.nullcontext()), ("beside a busy process", competitor())):
            with beside:
                times, ratio = measure(made, inputs, 20 if options.quick else 80)
            medians = {each: statistics.median(own) for each, own in times.items()}
            figures = ", ".join(f"{each} {1e6 * seconds:.0f} us" for each, seconds in medians.items())
            print(f"{name}, {load}: {figures}; {ratio.estimate:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] the time")
            row = {"ratio": ratio.estimate, "low": ratio.low, "high": ratio.high, "times": times}
            rows.append({"case": name, "load": load, **row})
    if options.json:
        document = {"fingerprint": fingerprint().to_dict(), "quietness": [str(before), str(quietness())], "rows": rows}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
