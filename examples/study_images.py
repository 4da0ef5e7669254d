"""What moves the accuracy of a small convolutional network on 2,000 CIFAR images, and what a cheap estimator is worth.

    taut study run examples/study_images.py --workers 2 --store images.study
    taut study report images.study --html images.html

CIFAR10_ARCHIVE names a tar of images `train/<class>/<number>.jpg`; the copy beside the repository is lossy, so compare
its scores with each other only. IMAGES_SCALE=0.1 makes every count a tenth.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from taut.errors import ArgumentError, DataError, MissingExtraError
from taut.stats import (
    FixedHyperparameterEstimator,
    RandomSearch,
    Range,
    Streams,
    Study,
    VarianceBySource,
    out_of_bootstrap,
)

EPOCHS, BATCH, PER_CLASS, TRAIN = 5, 64, 200, 1500
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Images:
    """Accuracy of two convolutions with group normalisation and a linear layer on images of half the size."""

    name = "cifar-cnn-2"
    sources = ("data_split", "data_order", "augmentation", "initialisation", "dropout")
    space: ClassVar = {
        "learning_rate": Range(0.003, 0.1, 0.02, log=True),
        "l2": Range(1e-6, 1e-2, 1e-3, log=True),
    }

    def run(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        """Train on train and validation images together, and score on the test images."""
        split = self._split(streams)
        return accuracy(fit(np.concatenate([split.train, split.validation]), hyperparameters, streams), split.test)

    def validate(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        """Train on the train images alone, and score on the validation images."""
        split = self._split(streams)
        return accuracy(fit(split.train, hyperparameters, streams), split.validation)

    def _split(self, streams: Streams):
        return out_of_bootstrap(images()[1].numpy(), streams.generator("data_split"), train=TRAIN, validation=250)


def fit(rows: np.ndarray, hyperparameters: Mapping[str, float], streams: Streams) -> list[Tensor]:
    """Weights after training on the images of the given rows."""
    pixels, labels = (part[torch.from_numpy(rows)] for part in images())
    start = streams.torch_generator("initialisation")
    shapes = [(16, 3, 3, 3), (32, 16, 3, 3), (10, 32 * 4 * 4)]
    weights = []
    for shape in shapes:
        weight = torch.randn(shape, generator=start) * (2 / np.prod(shape[1:])) ** 0.5
        weights += [weight.requires_grad_(), torch.zeros(shape[0], requires_grad=True)]
    optimiser = torch.optim.SGD(weights, hyperparameters["learning_rate"], 0.9, weight_decay=hyperparameters["l2"])
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    orders, change = streams.torch_generator("data_order"), streams.torch_generator("augmentation")
    drop = streams.torch_generator("dropout")
    for _ in range(EPOCHS):
        seen = augmented(pixels, change)
        for batch in torch.randperm(len(labels), generator=orders).split(BATCH):
            kept = (torch.rand((len(batch), 32 * 4 * 4), generator=drop) >= 0.3) / 0.7
            loss = functional.cross_entropy(forward(weights, seen[batch], kept), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return weights


def forward(weights: list[Tensor], pixels: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """Pixels (N, 3, 16, 16) to logits (N, 10)."""
    x = pixels
    for weight, bias in (weights[:2], weights[2:4]):
        x = functional.group_norm(functional.conv2d(x, weight, padding=1), 4) + bias[:, None, None]
        x = functional.max_pool2d(functional.relu(x), 2)
    return functional.linear(x.flatten(1) * kept, *weights[4:])


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored or not, and moved by up to one pixel."""
    count = len(pixels)
    mirrored = torch.rand(count, generator=generator) < 0.5
    turned = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    down, right = torch.randint(0, 3, (2, count), generator=generator)
    rows = (torch.arange(16)[None] + down[:, None])[:, None, :, None]
    columns = (torch.arange(16)[None] + right[:, None])[:, None, None, :]
    padded = functional.pad(turned, (1, 1, 1, 1))
    return padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


@torch.no_grad()
def accuracy(weights: list[Tensor], rows: np.ndarray) -> float:
    """Share of the images of the given rows that are classified rightly."""
    pixels, labels = (part[torch.from_numpy(rows)] for part in images())
    return float((forward(weights, pixels).argmax(1) == labels).double().mean())


@cache
def images() -> tuple[Tensor, Tensor]:
    """Pixels (2000, 3, 16, 16), centred, and classes (2000,)."""
    path = Path(
        os.environ.get("CIFAR10_ARCHIVE", Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.tar.gz")
    )
    if not path.is_file():
        raise DataError(f"no archive of images at {path}", fix="set CIFAR10_ARCHIVE to the tar file that holds them")
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", extra="bench", needed_for="the study of images") from error
    wanted = {f"train/{name}/{index:04}.jpg": label for label, name in enumerate(CLASSES) for index in range(PER_CLASS)}
    found: dict[str, np.ndarray] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name in wanted and (content := archive.extractfile(member)):
                found[member.name] = np.array(Image.open(io.BytesIO(content.read())).convert("RGB"))
    if len(found) != len(wanted):
        raise DataError(f"{path} holds {len(found)} of the {len(wanted)} images train/<class>/<number>.jpg")
    pixels = torch.from_numpy(np.stack([found[name] for name in wanted])).permute(0, 3, 1, 2).float() / 255
    return functional.avg_pool2d((pixels - 0.47) / 0.25, 2), torch.tensor(list(wanted.values()))


def make_study() -> Study:
    """The study at the scale that IMAGES_SCALE says."""
    given = os.environ.get("IMAGES_SCALE", "1")
    try:
        scale = float(given)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= 1:
        raise ArgumentError("IMAGES_SCALE", given, expected="a number above 0, at most 1")
    runs, repetitions, k, trials = (max(2, round(scale * count)) for count in (30, 20, 10, 10))
    search = RandomSearch(trials)
    parts = (
        VarianceBySource(runs, noise=2),
        *(FixedHyperparameterEstimator(k, search, vary, repetitions) for vary in ("init", "data", "all")),
    )
    return Study("images", Images(), parts)


study = make_study()
