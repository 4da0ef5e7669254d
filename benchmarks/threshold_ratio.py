"""How near do estimated thresholds come to the wanted ratio, on drawn numbers and on gradients of real trainings?

Gradients are those of every step of three trainings: a perceptron on digits, a convolutional network on CIFAR images, a
recurrent language model on WikiText-2. Each estimator has its own residual, to which the gradient is added and out of
which it takes what is above its threshold, as error feedback does. A group is the whole model, or a parameter of which
10 entries or more are wanted. Shown are the share of steps and groups whose count is within 25 % of what is wanted, the
worst count, and passes over the tensor: that for the moments of the whole, and those of the stages.

    python -m benchmarks.threshold_ratio [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import _trainings
from benchmarks._trainings import Training
from taut.distributed import AccumulatedMagnitudes, CountedThreshold, Fit, StagedThreshold, ThresholdEstimator
from taut.kernels import select_above
from taut.stats import fingerprint

RATIOS = (0.1, 0.01, 0.001)
FEWEST = 10  # entries; of fewer, 25 % are no whole entry
BAND = 0.25
STAGES = "threshold_stages"  # in the state of an estimator
FITS: tuple[Fit, ...] = ("exponential", "pareto", "gamma-pareto")
TRAININGS: dict[str, tuple[Callable[[], Training], int]] = {  # with epochs
    "digits": (_trainings.digits, 30),
    "images": (_trainings.images, 4),
    "words": (_trainings.words, 2),
}
DRAWN: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "Gauss": lambda generator, n: generator.normal(size=n),
    "Laplace": lambda generator, n: generator.laplace(size=n),
    "Student t, 3 degrees": lambda generator, n: generator.standard_t(3, size=n),
    "Gamma, shape 0.5": lambda generator, n: generator.gamma(0.5, size=n),
}


def arms(quick: bool) -> dict[str, ThresholdEstimator]:
    """Estimators by name: fixed numbers of stages, the paper's rule (with its own gamma inverse), and counting."""
    found: dict[str, ThresholdEstimator] = {}
    for fit in FITS[1:2] if quick else FITS:
        for stages in (1, 2, 3):
            found[f"{fit}, {stages} stages"] = StagedThreshold(fit, stages, adaptive=False)
        found[f"{fit}, paper's rule"] = StagedThreshold(fit, exact=False)
        found[f"{fit}, counting"] = CountedThreshold(fit)
    return found


class Group:
    """One tensor's residual and state under one estimator at one ratio.

    Args:
        estimator: of the threshold.
        ratio: wanted.
        elements: of the tensor.
    """

    def __init__(self, estimator: ThresholdEstimator, ratio: float, elements: int) -> None:
        self.estimator = estimator
        self.kept = round(ratio * elements)
        self.residual = torch.zeros(elements)
        self.state: dict[str, Tensor] = {}
        self.achieved: list[float] = []
        self.passes: list[int] = []

    def step(self, gradient: Tensor) -> None:
        """Add a gradient, (elements,), and take out what is above the threshold."""
        magnitudes = AccumulatedMagnitudes(gradient, self.residual, logarithms=self.estimator.logarithms)
        threshold = self.estimator.find(magnitudes, self.kept, self.state)
        above = select_above(self.residual, threshold, len(gradient))[2]
        self.estimator.record(self.kept, above, self.state)
        # Where fewer entries than wanted are not 0, all of them are right.
        self.achieved.append(1.0 if threshold == 0 and above <= self.kept else above / self.kept)
        self.passes.append(magnitudes.passes)


def gradients(training: Training, epochs: int, seed: int = 0) -> Iterator[list[Tensor]]:
    """The gradient of each parameter at each step of a training, flat."""
    torch.manual_seed(seed)
    network = training.build()
    optimiser = training.optimiser(network)
    for epoch in range(epochs):
        for inputs, targets in training.batches(seed, epoch):
            optimiser.zero_grad()
            _trainings.loss(network(inputs), targets).backward()
            yield [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()


def recorded(training: Training, epochs: int, estimators: dict[str, ThresholdEstimator]) -> list[dict[str, Any]]:
    """A row for each estimator and ratio."""
    torch.manual_seed(0)
    sizes = [parameter.numel() for parameter in training.build().parameters()]
    cells = {
        (name, ratio): {"whole": Group(each, ratio, sum(sizes))}
        for name, each in estimators.items()
        for ratio in RATIOS
    }
    for (name, ratio), groups in cells.items():
        groups |= {
            f"parameter {index}": Group(estimators[name], ratio, size)
            for index, size in enumerate(sizes)
            if ratio * size >= FEWEST
        }
    for parts in gradients(training, epochs):
        whole = torch.cat(parts)
        for groups in cells.values():
            for key, group in groups.items():
                group.step(whole if key == "whole" else parts[int(key.split()[1])])
    return [
        {"data": training.name, "estimator": name, "ratio": ratio, **_summary(list(groups.values()))}
        for (name, ratio), groups in cells.items()
    ]


def drawn(n: int, steps: int, estimators: dict[str, ThresholdEstimator]) -> list[dict[str, Any]]:
    """A row for each distribution, estimator and ratio, fresh numbers at each step and nothing left over."""
    rows = []
    for data, draw in DRAWN.items():
        cells = {(name, ratio): Group(each, ratio, n) for name, each in estimators.items() for ratio in RATIOS}
        for step in range(steps):
            numbers = torch.from_numpy(draw(np.random.default_rng(step), n)).float()
            for group in cells.values():
                group.residual.zero_()
                group.step(numbers)
        rows += [
            {"data": data, "estimator": name, "ratio": ratio, **_summary([group])}
            for (name, ratio), group in cells.items()
        ]
    return rows


def _summary(groups: list[Group]) -> dict[str, Any]:
    achieved = np.concatenate([group.achieved for group in groups])
    whole = np.array(groups[0].achieved)
    distance = np.abs(np.log(np.maximum(achieved, 1e-9)))
    return {
        "groups": len(groups),
        "steps": len(whole),
        "within": float(np.mean(np.abs(achieved - 1) <= BAND)),
        "within_whole": float(np.mean(np.abs(whole - 1) <= BAND)),
        "worst": float(achieved[distance.argmax()]),
        "mean": float(achieved.mean()),
        "passes": float(np.mean(np.concatenate([group.passes for group in groups]))),
        "stages": sorted({int(group.state[STAGES]) for group in groups if STAGES in group.state}),
    }


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Pareto fits only, fewer numbers, one epoch of digits")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    estimators = arms(options.quick)
    start, rows = time.perf_counter(), []
    parts = [lambda: drawn(100_000 if options.quick else 1_000_000, 6 if options.quick else 20, estimators)]
    for name, (make, epochs) in TRAININGS.items():
        if not options.quick or name == "digits":
            parts.append(lambda make=make, epochs=epochs: recorded(make(), 1 if options.quick else epochs, estimators))
    heads = f"{'within':>8}{'(whole)':>8}{'worst':>9}{'mean':>8}{'passes':>7}  stages"
    print(f"{'data':22}{'ratio':>7} {'estimator':28}{heads}")
    for part in parts:
        for row in part():
            rows.append(row)
            print(
                f"{row['data']:22}{row['ratio']:7g} {row['estimator']:28}{row['within']:8.1%}{row['within_whole']:8.1%}"
                f"{row['worst']:9.3f}{row['mean']:8.3f}{row['passes']:7.2f}  {row['stages'] or ''}",
                flush=True,
            )
    if options.json:
        report = {"host": fingerprint().to_dict(), "seconds": time.perf_counter() - start, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
