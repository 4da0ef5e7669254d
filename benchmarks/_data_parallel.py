"""A data-parallel training whose ranks exchange gradients through compressors, the same on threads and on Gloo."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power_sgd

from benchmarks._trainings import Training, loss
from taut.distributed import Communicator, Compressor, Controller, Gradient, Message, run_ranks
from taut.distributed._exchange import Exchange

DECAYS = (0.5, 0.75)  # of the epochs, where the learning rate falls to a tenth
LARGEST_NORM = 1.0  # of a gradient; a larger one is scaled down


@dataclass
class Outcome:
    """What came out of a training.

    Attributes:
        scores: on the test data after each epoch.
        sent: bytes that a rank sent in each epoch.
        levels: of each parameter in each epoch.
        weights: at the end, (parameters,).
    """

    scores: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    levels: list[dict[str, int]] = field(default_factory=list)
    weights: np.ndarray = field(default_factory=lambda: np.empty(0))


def learning_rate(training: Training, epochs: int, epoch: int) -> float:
    """That of an epoch."""
    return training.learning_rate * 0.1 ** sum(epoch >= share * epochs for share in DECAYS)


def initialised(training: Training, seed: int) -> nn.Module:
    """The network that a training begins with."""
    torch.manual_seed(seed)
    return training.build()


class _Rank:
    """One rank's share of a training.

    Args:
        training: of all ranks.
        network: of this rank.
        seed: of the order of the data.
        rank: which.
        ranks: how many.
    """

    def __init__(self, training: Training, network: nn.Module, seed: int, rank: int, ranks: int) -> None:
        self._training, self._network, self._seed = training, network, seed
        self._rank, self._ranks = rank, ranks
        self._optimiser = training.optimiser(network)

    def go_through(self, epoch: int, rate: float, step: Callable[[Tensor, Tensor], object]) -> None:
        """An epoch at a learning rate; a step leaves the mean gradient of all ranks behind."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        for inputs, targets in self._training.batches(self._seed, epoch):
            own = inputs.chunk(self._ranks)[self._rank], targets.chunk(self._ranks)[self._rank]
            descend(self._network, self._optimiser, lambda own=own: step(*own))


def descend(network: nn.Module, optimiser: torch.optim.Optimizer, find_gradients: Callable[[], object]) -> None:
    """One step of a training, with the gradient's norm limited."""
    optimiser.zero_grad()
    find_gradients()
    nn.utils.clip_grad_norm_(network.parameters(), LARGEST_NORM)
    optimiser.step()


def train(
    training: Training,
    network: nn.Module,
    epochs: int,
    seed: int,
    communicator: Communicator,
    levels: Sequence[Compressor],
    make_controller: Callable[[list[str]], Controller] | None,
) -> Outcome:
    """Train as one rank; the network is of this rank alone."""
    names = [name for name, _ in network.named_parameters()]
    controller = make_controller(names) if make_controller else None
    exchange = Exchange(names, levels, controller, communicator)

    def step(inputs: Tensor, targets: Tensor) -> None:
        loss(network(inputs), targets).backward()
        exchange([Gradient(name, _gradient(parameter)) for name, parameter in network.named_parameters()])

    outcome, rank = Outcome(), _Rank(training, network, seed, communicator.rank, communicator.size)
    for epoch in range(epochs):
        rate = learning_rate(training, epochs, epoch)
        exchange.start_epoch(epoch, rate)
        before = communicator.sent
        rank.go_through(epoch, rate, step)
        outcome.levels.append(dict(exchange.levels))
        outcome.sent.append(communicator.sent - before)
        outcome.scores.append(training.evaluate(network) if communicator.rank == 0 else 0.0)
    outcome.weights = _weights(network)
    return outcome


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _weights(network: nn.Module) -> np.ndarray:
    return nn.utils.parameters_to_vector(network.parameters()).detach().numpy()


def train_on_threads(
    training: Training,
    epochs: int,
    seed: int,
    ranks: int,
    levels: Sequence[Compressor],
    make_controller: Callable[[list[str]], Controller] | None = None,
) -> list[Outcome]:
    """Train with ranks that are threads of this process."""
    network = initialised(training, seed)

    def work(communicator: Communicator) -> Outcome:
        return train(training, copy.deepcopy(network), epochs, seed, communicator, levels, make_controller)

    return run_ranks(ranks, work)


def train_with_torchs_hook(make: Callable[[], Training], epochs: int, seed: int) -> Outcome:
    """Train as one rank of a process group with torch's PowerSGD at its defaults, in one bucket.

    The hook sends all gradients whole for 1000 steps, and later those that low rank would not make much smaller.
    """
    training = make()
    network = initialised(training, seed)
    replicated = nn.parallel.DistributedDataParallel(network, bucket_cap_mb=1 << 20)
    state = power_sgd.PowerSGDState(None)
    ranks, sent = dist.get_world_size(), [0.0]

    def hook(state: power_sgd.PowerSGDState, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        whole = state.iter < state.start_powerSGD_iter
        before = state.total_numel_after_compression
        future = power_sgd.powerSGD_hook(state, bucket)
        elements = bucket.buffer().numel() if whole else state.total_numel_after_compression - before
        sent[0] += Message("all_reduce", 4 * elements).sent(ranks)
        return future

    hook.__annotations__.clear()  # torch compares them with types, and here they are strings
    replicated.register_comm_hook(state, hook)

    def step(inputs: Tensor, targets: Tensor) -> None:
        loss(replicated(inputs), targets).backward()

    outcome, rank = Outcome(), _Rank(training, network, seed, dist.get_rank(), ranks)
    for epoch in range(epochs):
        before = sent[0]
        rank.go_through(epoch, learning_rate(training, epochs, epoch), step)
        outcome.sent.append(sent[0] - before)
        outcome.scores.append(training.evaluate(network))
    outcome.weights = _weights(network)
    return outcome
