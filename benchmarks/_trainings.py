"""Small trainings on real data: images, words and digits."""

from __future__ import annotations

import io
import random
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from taut.errors import DataError

_DATA = Path(__file__).parents[2] / "shared" / "data"

VOCABULARY = 1000
WORDS_AT_ONCE = 20  # that back-propagation goes through


@dataclass(frozen=True)
class Training:
    """A network, its data, and how to train it.

    Attributes:
        name: of the task.
        build: makes the network, initialised from torch's global seed.
        inputs: of training, one row an example.
        targets: of training.
        held_out: inputs and targets of the test.
        batch: examples of a step, of all ranks together.
        learning_rate: of SGD.
        momentum: of SGD.
        score: the higher the better, from the logits and targets of the test.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Tensor
    targets: Tensor
    held_out: tuple[Tensor, Tensor]
    batch: int
    learning_rate: float
    momentum: float
    score: Callable[[Tensor, Tensor], float]

    @property
    def steps(self) -> int:
        """Full batches of an epoch."""
        return len(self.inputs) // self.batch

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch in their random order; what does not fill one is left out."""
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(self.inputs)))
        for rows in order[: self.steps * self.batch].split(self.batch):
            yield self.inputs[rows], self.targets[rows]

    def evaluate(self, network: nn.Module) -> float:
        """The score of a network on the test data."""
        inputs, targets = self.held_out
        with torch.no_grad():
            logits = torch.cat([network(part) for part in inputs.split(500)])
        return self.score(logits, targets)

    def optimiser(self, network: nn.Module) -> torch.optim.SGD:
        """For a network."""
        return torch.optim.SGD(network.parameters(), self.learning_rate, self.momentum)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits (..., classes)."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def _accuracy(logits: Tensor, targets: Tensor) -> float:
    return 100 * (logits.argmax(-1) == targets).double().mean().item()


def _negative_loss(logits: Tensor, targets: Tensor) -> float:
    return -loss(logits, targets).item()


def digits(width: int = 256) -> Training:
    """A perceptron with two hidden layers of a width on 8x8 images of digits (scikit-learn's)."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels).float() / 16 - 0.5
    labels = torch.tensor(classes).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    train, test = order[:1200], order[1200:]

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )  # 85,002 parameters by default

    held_out = images[test], labels[test]
    return Training("digits", build, images[train], labels[train], held_out, 32, 0.05, 0.9, _accuracy)


def images(count: int = 10_000) -> Training:
    """A convolutional network on CIFAR images."""
    (inputs, targets), held_out = (_cifar(part, size) for part, size in (("train", count), ("test", 2000)))

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2048, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )  # 225,034 parameters

    return Training("images", build, inputs, targets, held_out, 64, 0.05, 0.9, _accuracy)


class WordModel(nn.Module):
    """Words, (N, T), to logits of the next ones, (N, T, vocabulary); 292,328 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 64)
        self.layers = nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, VOCABULARY)

    def forward(self, words: Tensor) -> Tensor:
        """From a state of zeros."""
        return self.head(self.layers(self.embedding(words))[0])


def words() -> Training:
    """A recurrent language model: trained on WikiText-2's validation text, tested on its test text."""
    texts = [_words(name) for name in ("valid", "test")]
    known = {word: index for index, (word, _) in enumerate(Counter(texts[0]).most_common(VOCABULARY - 1), start=1)}
    (inputs, targets), (test_inputs, test_targets) = (_windows([known.get(word, 0) for word in text]) for text in texts)
    held_out = test_inputs[:1000], test_targets[:1000]
    return Training("words", WordModel, inputs, targets, held_out, 32, 1.0, 0.0, _negative_loss)


def _windows(text: list[int]) -> tuple[Tensor, Tensor]:
    """Inputs and the words that follow them, (windows, words at once) each."""
    whole = (len(text) - 1) // WORDS_AT_ONCE * WORDS_AT_ONCE
    tokens = torch.tensor(text)
    return tokens[:whole].view(-1, WORDS_AT_ONCE), tokens[1 : whole + 1].view(-1, WORDS_AT_ONCE)


def _words(part: str) -> list[str]:
    path = _existing("text", "wikitext2", f"{part}.txt")
    return path.read_text(encoding="utf-8").replace("\n", " <eos> ").split()


@cache
def _cifar(part: str, count: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 32, 32), centred, and classes, as many of each."""
    from PIL import Image

    with tarfile.open(_existing("cifar10-jpeg.tar.gz")) as archive:
        members = sorted(item.name for item in archive if item.name.startswith(f"{part}/") and item.isfile())
        classes = sorted({PurePosixPath(name).parts[1] for name in members})
        chosen = set(random.Random(0).sample(members, count))
        pixels, labels = [], []
        for item in archive:
            content = archive.extractfile(item) if item.name in chosen else None
            if content is not None:
                pixels.append(np.array(Image.open(io.BytesIO(content.read())).convert("RGB")))
                labels.append(classes.index(PurePosixPath(item.name).parts[1]))
    tensor = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.491, 0.482, 0.447]), torch.tensor([0.247, 0.243, 0.262])
    return ((tensor - mean[:, None, None]) / deviation[:, None, None]).contiguous(), torch.tensor(labels)


def _existing(*parts: str) -> Path:
    path = _DATA.joinpath(*parts)
    if not path.exists():
        raise DataError(f"no data at {path}", fix="put the data set's file there")
    return path
