"""What Accordion costs: the share of a training step that watching the gradients takes.

Real trainings on one thread, on the batch that one of 4 ranks has. In each step the forward and backward pass and the
optimiser are timed, then in turns Accordion's look at every gradient and what no such controller can do without: one
read of the gradients and one sum, here one addition to tensors of the same shapes; of the two the one counts that comes
first after the step. The decision at the end of an epoch is shared out over its steps. Times are processor times of the
thread, medians over steps of new data.

The share is that of the bytes of the gradient to the work of the step: large for perceptrons on few examples, which
do little with each parameter, small for convolutions.

    python -m benchmarks.controller_overhead [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples.resnet20 import Block, ResNet20
from torch import Tensor, nn

from benchmarks import _trainings
from benchmarks._data_parallel import descend, initialised
from benchmarks._shaped_training import batches, wide_digits
from benchmarks._trainings import Training, loss
from taut.distributed import Accordion
from taut.stats import fingerprint, quantile_interval, quietness

RANKS = 4
WARM_UP = 3
TARGET = 0.01  # of the step


def residual_network() -> nn.Module:
    """CIFAR images to logits with ResNet-18's widths and depth; shortcuts have no parameters."""
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Block(*pair) for pair in pairwise(widths)]
    stem = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 10))


def residual(network: Callable[[], nn.Module]) -> Training:
    """A residual network on CIFAR images, 32 for each rank."""
    return replace(_trainings.images(), build=network, batch=32 * RANKS)


TRAININGS: dict[str, tuple[Callable[[], Training], int]] = {  # with steps
    "digits": (_trainings.digits, 300),
    "wide digits": (wide_digits, 300),
    "images": (_trainings.images, 300),
    "words": (_trainings.words, 300),
    "ResNet-20": (lambda: residual(ResNet20), 50),
    "ResNet-18": (lambda: residual(residual_network), 14),
}


def main() -> int:
    """Measure each training; exit code 1 if one of them misses the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits only, few steps")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in ["digits", "wide digits"] if options.quick else TRAININGS:
        make, steps = TRAININGS[name]
        rows.append(row := measure(name, make(), min(steps, 60) if options.quick else steps))
        show(row)
    if options.json is not None:
        document = {"host": fingerprint().to_dict(), "quietness": str(quietness()), "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(any(row["share"][0] > TARGET for row in rows))


def measure(name: str, training: Training, steps: int) -> dict[str, Any]:
    """Times of one training, and the controller's share of its step with an interval at 95 %."""
    network = initialised(training, 0)
    optimiser = training.optimiser(network)
    parameters = dict(network.named_parameters())
    controller = Accordion(parameters)
    sums = {one: torch.zeros_like(parameter) for one, parameter in parameters.items()}
    steps_taken: dict[bool, list[float]] = {True: [], False: []}  # by whether the controller looked first
    looks: dict[bool, list[float]] = {True: [], False: []}
    decisions = []

    def watch() -> None:
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                controller.observe(name, parameter.grad)

    def add() -> None:
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                sums[name].add_(parameter.grad)

    order = np.random.default_rng(0).permutation((steps + WARM_UP + 1) // 2 * [0, 1])  # memory may come in turns too
    for step, (inputs, targets) in enumerate(islice(batches(training, 0), steps + WARM_UP)):
        if step % training.steps == 0 or step == steps + WARM_UP - 1:
            decisions.append(seconds_of(lambda step=step: controller.decide(step, training.learning_rate)))
        own = inputs.chunk(RANKS)[0], targets.chunk(RANKS)[0]
        whole = seconds_of(lambda own=own: train(network, optimiser, *own))
        watches_first = bool(order[step])
        look = seconds_of(watch if watches_first else add)
        (add if watches_first else watch)()  # finds the gradients in the cache, and does not count
        if step >= WARM_UP:
            steps_taken[watches_first].append(whole)
            looks[watches_first].append(look)
    deciding = float(np.median(decisions[1:])) / training.steps
    share = quantile_interval((np.array(looks[True]) + deciding) / np.array(steps_taken[True]), 0.5)
    return {
        "training": name,
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "step_seconds": float(np.median(steps_taken[True] + steps_taken[False])),
        "observe_seconds": float(np.median(looks[True])),
        "decide_seconds_per_step": deciding,
        "limit_seconds": float(np.median(looks[False])),
        "share": [share.estimate, share.low, share.high],
    }


def train(network: nn.Module, optimiser: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    """One step."""
    descend(network, optimiser, lambda: loss(network(inputs), targets).backward())


def seconds_of(work: Callable[[], object]) -> float:
    """Processor time of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def show(row: dict[str, Any]) -> None:
    """Print one training."""
    share, low, high = row["share"]
    watching = row["observe_seconds"] + row["decide_seconds_per_step"]
    print(
        f"{row['training']:12s}{row['parameters'] / 1e6:6.2f} M parameters, step {row['step_seconds'] * 1e3:7.2f} ms, "
        f"controller {watching * 1e3:6.3f} ms = {share:.2%} [{low:.2%}, {high:.2%}] of it (target {TARGET:.0%}); "
        f"{watching / row['limit_seconds']:.2f} times the limit of {row['limit_seconds'] * 1e3:.3f} ms",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
