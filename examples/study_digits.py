"""What moves the accuracy of a small network on the digits of scikit-learn, and what a cheap estimator of it is worth.

    taut study run examples/study_digits.py --workers 2 --store digits.study
    taut study report digits.study --html digits.html

The ideal estimator (50 searches of 50 trials: 2,550 fits) stands beside estimators that search once and redraw the
initialisation, the split, or everything. DIGITS_SCALE=0.1 makes every count a tenth.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from taut.errors import ArgumentError, MissingExtraError
from taut.stats import (
    FixedHyperparameterEstimator,
    IdealEstimator,
    RandomSearch,
    Range,
    Streams,
    Study,
    VarianceBySource,
    out_of_bootstrap,
)

EPOCHS, BATCH = 6, 64


class Digits:
    """Accuracy of a network of one hidden layer, trained by stochastic gradient descent with momentum."""

    name = "digits-mlp-1"
    sources = ("data_split", "data_order", "augmentation", "initialisation", "dropout")

    # The L2 penalty is printed as a logarithmic range from 0, which is impossible: its floor here is 1e-6.
    space: ClassVar = {
        "hidden": Range(20, 100, 50, integer=True, minimum=2),
        "learning_rate": Range(0.01, 0.5, 0.1, log=True),
        "l2": Range(1e-6, 1e-2, 1e-3, log=True),
    }

    def run(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        """Train on train and validation samples together, and score on the test samples."""
        pixels, labels = samples()
        split = out_of_bootstrap(labels.numpy(), streams.generator("data_split"))
        train = torch.from_numpy(np.concatenate([split.train, split.validation]))
        return accuracy(fit(pixels[train], labels[train], hyperparameters, streams), torch.from_numpy(split.test))

    def validate(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        """Train on the train samples alone, and score on the validation samples."""
        pixels, labels = samples()
        split = out_of_bootstrap(labels.numpy(), streams.generator("data_split"))
        train = torch.from_numpy(split.train)
        weights = fit(pixels[train], labels[train], hyperparameters, streams)
        return accuracy(weights, torch.from_numpy(split.validation))


def fit(pixels: Tensor, labels: Tensor, hyperparameters: Mapping[str, float], streams: Streams) -> list[Tensor]:
    """Weights and biases after training on pixels (N, 64) and labels (N,)."""
    width, penalty = int(hyperparameters["hidden"]), hyperparameters["l2"]
    rate, momentum = hyperparameters["learning_rate"], 0.9
    start = streams.torch_generator("initialisation")
    weights = [
        torch.randn(64, width, generator=start) * (2 / 64) ** 0.5,
        torch.zeros(width),
        torch.randn(width, 10, generator=start) * (1 / width) ** 0.5,
        torch.zeros(10),
    ]
    speed = [torch.zeros_like(weight) for weight in weights]
    noise, drop = streams.torch_generator("augmentation"), streams.torch_generator("dropout")
    orders = streams.torch_generator("data_order")
    for epoch in range(EPOCHS):
        step = rate * (1 - epoch / EPOCHS)
        noisy = pixels + 0.1 * torch.randn(pixels.shape, generator=noise)
        for rows in torch.randperm(len(pixels), generator=orders).split(BATCH):
            x = noisy[rows]  # (B, 64)
            hidden = functional.relu(x @ weights[0] + weights[1])  # (B, H)
            kept = (torch.rand(hidden.shape, generator=drop) >= 0.1) / 0.9
            dropped = hidden * kept
            error = functional.softmax(dropped @ weights[2] + weights[3], 1)  # (B, 10)
            error[torch.arange(len(rows)), labels[rows]] -= 1
            error /= len(rows)
            back = (error @ weights[2].T) * kept * (hidden > 0)
            gradients = [x.T @ back, back.sum(0), dropped.T @ error, error.sum(0)]
            for weight, gradient, moving in zip(weights, gradients, speed, strict=True):
                moving.mul_(momentum).add_(gradient + penalty * weight)
                weight.sub_(step * moving)
    return weights


def accuracy(weights: list[Tensor], rows: Tensor) -> float:
    """Share of the given samples that are classified rightly."""
    pixels, labels = samples()
    hidden = functional.relu(pixels[rows] @ weights[0] + weights[1])
    return float((torch.argmax(hidden @ weights[2] + weights[3], 1) == labels[rows]).double().mean())


@cache
def samples() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 64) from 0 to 1 and classes (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="demo", needed_for="the study of the digits") from error
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)


def make_study() -> Study:
    """The study at the scale that DIGITS_SCALE says."""
    given = os.environ.get("DIGITS_SCALE", "1")
    try:
        scale = float(given)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= 1:
        raise ArgumentError("DIGITS_SCALE", given, expected="a number above 0, at most 1")
    k, repetitions = (max(2, round(scale * count)) for count in (50, 20))
    search = RandomSearch(k)
    parts = (
        VarianceBySource(k, noise=3, search=search, searches=k),
        IdealEstimator(k, search),
        *(FixedHyperparameterEstimator(k, search, vary, repetitions) for vary in ("init", "data", "all")),
    )
    return Study("digits", Digits(), parts)


study = make_study()
