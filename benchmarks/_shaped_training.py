"""A training on the ranks of a lab until it is good enough; only its steps are on the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from statistics import fmean

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks import _trainings
from benchmarks._data_parallel import descend, initialised
from benchmarks._trainings import Training, loss
from taut.distributed import (
    CANDIDATES,
    Accordion,
    Communicator,
    Compressor,
    Gradient,
    Handle,
    PowerSGD,
    attach,
    run_ranks,
)

ACCORDION = "Accordion"
LEVELS = (PowerSGD(4), PowerSGD(1))  # of Accordion


@dataclass
class Course:
    """A training as one rank has seen it.

    Attributes:
        seconds: of each step.
        scores: after each step, the same on every rank.
        sent: bytes that the rank has sent; None where no exchange of taut's counts them.
    """

    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    sent: float | None = None


@cache
def wide_digits() -> Training:
    """A perceptron of 1.1 M parameters on digits."""
    return replace(_trainings.digits(1024), batch=128)


def train_until(arm: str, seed: int, goal: float, most_steps: int) -> Course:
    """On a rank: train until the score is at least the goal, or for so many steps.

    Args:
        arm: "fp32" for stock DistributedDataParallel, "fp16" for its half-precision hook, "Accordion", or a name of
            `CANDIDATES`, attached.
        seed: of the first weights and the order of the data.
        goal: of the score.
        most_steps: after which it is given up.
    """
    training = wide_digits()
    network = initialised(training, seed)
    model = DistributedDataParallel(network)
    handle = prepare(model, arm)
    optimiser = training.optimiser(network)
    course = Course()
    for step, batch in zip(range(most_steps), batches(training, seed), strict=False):
        inputs, targets = (part.chunk(dist.get_world_size())[dist.get_rank()] for part in batch)
        dist.barrier()
        start = time.perf_counter()
        if handle is not None and step % training.steps == 0:
            handle.start_epoch(step // training.steps, training.learning_rate)
        descend(network, optimiser, lambda x=inputs, y=targets: loss(model(x), y).backward())
        course.seconds.append(time.perf_counter() - start)
        course.scores.append(told_by_the_first(training.evaluate(network) if dist.get_rank() == 0 else 0.0))
        if course.scores[-1] >= goal:
            break
    course.sent = None if handle is None else handle.statistics.sent
    return course


def prepare(model: DistributedDataParallel, arm: str) -> Handle | None:
    """Set up how gradients are exchanged; the handle where taut exchanges them."""
    if arm == "fp32":
        return None
    if arm == "fp16":
        model.register_comm_hook(dist.group.WORLD, fp16_compress_hook)
        return None
    if arm == ACCORDION:
        names = [name for name, _ in model.module.named_parameters()]
        return attach(model, LEVELS, Accordion(names, switch_every=1))
    return attach(model, CANDIDATES[arm])


def batches(training: Training, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Those of one epoch after the other, without end."""
    for epoch in count():
        yield from training.batches(seed, epoch)


def energies_kept() -> dict[str, float]:
    """For each of `CANDIDATES` the mean of `energy_kept` over the first epoch of one rank."""
    training = wide_digits()
    network = initialised(training, 0)
    optimiser = training.optimiser(network)
    kept: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for inputs, targets in training.batches(0, 0):
        step_without_exchange(network, optimiser, (inputs[: len(inputs) // 4], targets[: len(targets) // 4]))
        gradients = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
        for name, compressor in CANDIDATES.items():
            kept[name].append(energy_kept(compressor, gradients))
    return {name: fmean(values) for name, values in kept.items()}


def energy_kept(compressor: Compressor, gradients: Mapping[str, Tensor]) -> float:
    """The share of gradients' squared norm that is there after one exchange of two equal ranks, with empty memory."""

    def lost(communicator: Communicator) -> float:
        own = [Gradient(name, gradient.clone()) for name, gradient in gradients.items()]
        compressor.exchange(own, communicator, {})
        return sum((gradients[name] - mean).square().sum().item() for name, mean in own)

    whole = sum(gradient.square().sum().item() for gradient in gradients.values())
    return 1 - run_ranks(2, lost)[0] / whole


def told_by_the_first(value: float) -> float:
    """The value of rank 0."""
    told = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(told, src=0)
    return told.item()


def step_without_exchange(network: nn.Module, optimiser: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    """One step of one rank alone."""
    inputs, targets = batch
    descend(network, optimiser, lambda: loss(network(inputs), targets).backward())
