"""A small convolutional network on scikit-learn's handwritten digits: what `taut optimize` runs when given no model.

It is written as a user would write one: `model` is the factory, `data` gives the held-out samples, `METRIC` names the
metric. Training takes seconds, so that the example needs neither a download nor a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from taut.cost import thread_count
from taut.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

METRIC = "accuracy"

_SEED = 0
_EPOCHS = 10
_BATCH = 64


class Digits(nn.Module):
    """Three convolution, batch normalisation and ReLU blocks, and a two-layer classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, 32),
            *_block(32, 64),
            nn.MaxPool2d(2),
            *_block(64, 64),
        )
        self.classifier = nn.Sequential(nn.Linear(64 * 4 * 4, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 10) for images (N, 1, 8, 8), float32 in 0..1."""
        return self.classifier(self.features(images).flatten(1))


def model() -> nn.Module:
    """Train the network on two thirds of the digits, from a fixed seed, and return it in evaluation mode.

    It trains on one thread: on layers this small a second one gains little, and where other programs use the cores it
    makes each step many times slower. Torch's thread count and random state are left as they were.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    images, labels, _, _ = _split()
    with thread_count(1), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(_SEED)
        network = Digits()
        steps = _EPOCHS * -(-len(images) // _BATCH)
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
        for batch in _batches(len(images)):
            optimiser.zero_grad()
            functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return network.eval().requires_grad_(False)


def data() -> dict[str, tuple[Tensor, ...] | Tensor]:
    """Return the held-out third: `inputs`, a tuple of one (N, 1, 8, 8) float32 tensor, and `labels`, (N,) int64.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    _, _, images, labels = _split()
    return {"inputs": (images,), "labels": labels}


def _block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    # No bias: the batch normalisation that follows has its own.
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


def _batches(samples: int) -> Iterator[Tensor]:
    for _ in range(_EPOCHS):
        yield from torch.randperm(samples).split(_BATCH)


def _split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Training images and labels, then held-out ones. The data set is ordered by writer: shuffle before splitting.
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="demo", needed_for="the embedded digits example") from error
    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(_SEED))
    images = (torch.from_numpy(pixels).float() / 16).reshape(-1, 1, 8, 8)[order]  # (N, 1, 8, 8), grey levels 0..16
    labels = torch.from_numpy(digits).long()[order]
    held_out = len(labels) // 3
    return images[held_out:], labels[held_out:], images[:held_out], labels[:held_out]
