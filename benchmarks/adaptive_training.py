"""Does Accordion keep the accuracy of mild compression at fewer bytes, and is that due to when it compresses?

Trainings with 4 ranks on real data, several seeds each, and these arms:

- low, high: the mild and the hard level at all times; fp16: half-precision all-reduce;
- accordion: mild in critical phases;
- random: Accordion's own schedule of the same seed, each parameter's epochs in random order, so the same bytes;
- first: mild for as many epochs as Accordion was on average over the parameters, then hard;
- static: one level whose bytes are nearest to Accordion's;
- torch: `powerSGD_hook` at its defaults under DistributedDataParallel on Gloo, in one bucket.

The other arms' ranks are threads that run the very exchange of `taut.distributed.attach`; --check compares them with
Gloo processes. Bytes are those that a rank sends (ring all-reduce), as counted at each collective. Each run is a line
of the file, so that a study goes on where it was stopped.

    python -m benchmarks.adaptive_training --rows FILE [--tasks TASK ...] [--arms ARM ...] [--seeds SEED ...] [--quick]
        [--check] [--report] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist

from benchmarks import _trainings
from benchmarks._adaptive_bytes import scheduled_bytes, torchs_bytes
from benchmarks._adaptive_report import claims, report
from benchmarks._data_parallel import Outcome, initialised, train, train_on_threads, train_with_torchs_hook
from benchmarks._trainings import Training
from taut.distributed import (
    Accordion,
    Compressor,
    Controller,
    Float16,
    LocalRanks,
    ProcessGroupCommunicator,
    RandomSchedule,
    Static,
    TopK,
    WarmUp,
)
from taut.stats import fingerprint

RANKS = 4
ARMS = ("low", "high", "accordion", "random", "first", "static", "fp16", "torch")


@dataclass(frozen=True)
class Task:
    """A training with its two levels.

    Attributes:
        make: makes the training.
        epochs: of it.
        switch_every: epochs between Accordion's comparisons, 300 epochs' 10 scaled down.
        low: the mild level.
        high: the hard level.
        between: levels of which the static arm takes one.
    """

    make: Callable[[], Training]
    epochs: int
    switch_every: int
    low: Compressor
    high: Compressor
    between: Sequence[Compressor]


BETWEEN = [TopK(0.001 * 1.1**index) for index in range(49)]  # up to 0.1
TASKS = {
    "words": Task(_trainings.words, 8, 1, TopK(0.1), TopK(0.001), BETWEEN),
    "images": Task(_trainings.images, 16, 2, TopK(0.1), TopK(0.001), BETWEEN),
    "digits": Task(_trainings.digits, 40, 2, TopK(0.1), TopK(0.001), BETWEEN),
}


Found: TypeAlias = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""Finished runs by task, arm and seed."""


class Rows:
    """Finished runs in a file, one a line.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.found = {self._key(row): row for row in map(json.loads, filter(None, lines))}

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, str, int]:
        return row["task"], row["arm"], row["seed"]

    def add(self, row: dict[str, Any]) -> None:
        """Append one."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.found[self._key(row)] = row


def shapes_of(training: Training) -> dict[str, torch.Size]:
    """Of the parameters, by name."""
    return {name: parameter.shape for name, parameter in initialised(training, 0).named_parameters()}


def compressors_of(name: str, arm: str, seed: int, training: Training, found: Found) -> list[Compressor]:
    """The levels of an arm; the one of the static arm is nearest to Accordion's bytes of the seed."""
    task = TASKS[name]
    if arm == "fp16":
        return [Float16()]
    if arm == "static":
        wanted = sum(found[name, "accordion", seed]["sent"]) / (task.epochs * training.steps)
        shapes = list(shapes_of(training).values())
        return [min(task.between, key=lambda each: abs(each.traffic(shapes, RANKS).sent(RANKS) - wanted))]
    return [task.low, task.high]


def controller_of(name: str, arm: str, seed: int, found: Found) -> Callable[[list[str]], Controller] | None:
    """What chooses the levels of an arm; None where there is one."""
    task = TASKS[name]
    if arm in ("low", "high"):
        return lambda names: Static(names, int(arm == "high"))
    if arm == "accordion":
        return lambda names: Accordion(names, switch_every=task.switch_every)
    if arm in ("fp16", "static"):
        return None
    schedule = found[name, "accordion", seed]["levels"]
    if arm == "random":
        return lambda names: RandomSchedule(schedule, seed)
    mild = np.mean([level == 0 for epoch in schedule for level in epoch.values()])
    return lambda names: WarmUp(names, math.ceil(mild * task.epochs))


def run(name: str, arm: str, seed: int, training: Training, found: Found) -> Outcome:
    """One run of one arm; those that follow Accordion's need its row of the seed."""
    task = TASKS[name]
    if arm == "torch":
        return _on_gloo(train_with_torchs_hook, task.make, task.epochs, seed)
    compressors = compressors_of(name, arm, seed, training, found)
    controller = controller_of(name, arm, seed, found)
    return train_on_threads(training, task.epochs, seed, RANKS, compressors, controller)[0]


def bytes_by_formula(name: str, arm: str, seed: int, training: Training, found: Found) -> list[float]:
    """What a finished run has sent in each epoch, from its levels and the shapes of its parameters."""
    shapes = shapes_of(training)
    if arm == "torch":
        return torchs_bytes(shapes.values(), TASKS[name].epochs, training.steps, RANKS)
    compressors = compressors_of(name, arm, seed, training, found)
    return scheduled_bytes(found[name, arm, seed]["levels"], shapes, compressors, training.steps, RANKS)


def compare_bytes(found: Found) -> dict[str, int]:
    """Print and return in how many runs the bytes that were counted are those of the formulas, in every epoch."""
    trainings = {name: TASKS[name].make() for name in {key[0] for key in found}}
    equal = sum(bytes_by_formula(*key, trainings[key[0]], found) == row["sent"] for key, row in found.items())
    print(f"bytes as counted and by formula: equal in {equal} of {len(found)} runs")
    return {"runs": len(found), "bytes_as_by_formula": equal}


def _on_gloo(work: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """What rank 0 of a group of Gloo processes returns."""
    with LocalRanks(RANKS) as ranks:
        return ranks.run(work, *arguments, timeout=4 * 3600)[0]


def as_rank_of_gloo(name: str, epochs: int, seed: int) -> Outcome:
    """Accordion as one process of a Gloo group."""
    task = TASKS[name]
    training = task.make()
    group = dist.group.WORLD
    assert group is not None
    communicator = ProcessGroupCommunicator(group, torch.device("cpu"))
    make = partial(Accordion, switch_every=task.switch_every)
    network = initialised(training, seed)
    return train(training, network, epochs, seed, communicator, [task.low, task.high], make)


def check(name: str, epochs: int = 5) -> None:
    """Print how ranks that are threads differ from Gloo processes."""
    task = TASKS[name]
    make = partial(Accordion, switch_every=task.switch_every)
    threads = train_on_threads(task.make(), epochs, 0, RANKS, [task.low, task.high], make)[0]
    processes = _on_gloo(as_rank_of_gloo, name, epochs, 0)
    difference = float(np.abs(threads.weights - processes.weights).max())
    print(f"{name}: threads against Gloo processes: largest difference of a weight {difference:.3g},", end=" ")
    print(f"bytes {'equal' if threads.sent == processes.sent else 'differ'},", end=" ")
    print(f"levels {'equal' if threads.levels == processes.levels else 'differ'},", end=" ")
    print(f"scores {threads.scores[-1]:.4f} and {processes.scores[-1]:.4f}")


def study(rows: Rows, names: Sequence[str], arms: Sequence[str], seeds: Iterable[int]) -> None:
    """Run what is missing, seed by seed."""
    made = {name: TASKS[name].make() for name in names}
    for seed in seeds:
        for name in names:
            for arm in arms:
                if (name, arm, seed) in rows.found:
                    continue
                start = time.perf_counter()
                outcome = run(name, arm, seed, made[name], rows.found)
                row = {"task": name, "arm": arm, "seed": seed, "score": outcome.scores[-1], "sent": outcome.sent}
                row |= {"scores": outcome.scores, "levels": outcome.levels, "seconds": time.perf_counter() - start}
                rows.add(row)
                print(f"{name} {arm} {seed}: {row['score']:.3f}, {sum(row['sent']) / 1e6:.1f} MB", flush=True)


def main() -> None:
    """Run, resume or report a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file of finished runs; those in it are not run again")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(6)))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="random, first and static need accordion")
    parser.add_argument("--quick", action="store_true", help="digits only, two seeds")
    parser.add_argument(
        "--check", action="store_true", help="compare threads with Gloo processes, and run nothing else"
    )
    parser.add_argument("--report", action="store_true", help="show what is there, and run nothing")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ["digits"] if options.quick else options.tasks
    if options.check:
        for name in names:
            check(name)
        return
    rows = Rows(options.rows)
    if not options.report:
        study(rows, names, options.arms, range(2) if options.quick else options.seeds)
    found = report(rows.found.values())
    summary = {"claims": claims(found)} | compare_bytes(rows.found)
    if options.json:
        text = json.dumps({"host": fingerprint().to_dict(), "ranks": RANKS, "rows": found} | summary, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
