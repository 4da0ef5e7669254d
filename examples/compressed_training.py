"""Handwritten digits on several ranks, with gradients compressed: what it costs in accuracy and saves in bytes.

    torchrun --nproc-per-node 2 examples/compressed_training.py
    COMPRESSOR='PowerSGD(2)' torchrun --nproc-per-node 2 examples/compressed_training.py

COMPRESSOR is an expression of the names of taut.distributed; TopK(0.01) if it is not set.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import taut.distributed
from taut.distributed import Compressor, Statistics, TopK, attach
from taut.errors import ArgumentError, MissingExtraError

EPOCHS, BATCH, TRAINED = 12, 64, 1200


class Outcome(NamedTuple):
    """Accuracy on the held-out digits, in 0..1, and what was sent."""

    accuracy: float
    statistics: Statistics


def digits() -> tuple[Tensor, Tensor]:
    """Images (N, 64), float32 in 0..1, and labels (N,), in an order of chance that is the same on every rank."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="demo", needed_for="this example") from error
    pixels, numbers = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(numbers)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


def train(compressor: Compressor) -> Outcome:
    """Train on this rank's share of the digits; the process group is up already."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    images, labels = digits()
    own = torch.arange(rank, TRAINED - TRAINED % ranks, ranks)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    model = DistributedDataParallel(network)
    handle = attach(model, compressor)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(EPOCHS):
        order = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(epoch))]
        for batch in order.split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
    with torch.no_grad():
        found = network(images[TRAINED:]).argmax(dim=1)
    return Outcome((found == labels[TRAINED:]).float().mean().item(), handle.statistics)


def chosen() -> Compressor:
    """The compressor that COMPRESSOR names."""
    text = os.environ.get("COMPRESSOR")
    if text is None:
        return TopK(0.01)
    names = {name: getattr(taut.distributed, name) for name in taut.distributed.__all__}
    try:
        compressor = eval(text, {"__builtins__": {}}, names)
    except (NameError, SyntaxError, TypeError) as error:
        raise ArgumentError("COMPRESSOR", text, expected="a compressor, e.g. TopK(0.01) or PowerSGD(2)") from error
    if not isinstance(compressor, Compressor):
        raise ArgumentError("COMPRESSOR", text, expected="a compressor, e.g. TopK(0.01) or PowerSGD(2)")
    return compressor


def main() -> None:
    compressor = chosen()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    outcome = train(compressor)
    if dist.get_rank() == 0:
        statistics = outcome.statistics
        print(f"{compressor}: accuracy {outcome.accuracy:.3f}")
        print(f"{statistics.sent_per_step:,.0f} bytes a step and rank, {statistics.ratio:.1%} of an all-reduce")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
