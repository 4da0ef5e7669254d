"""Independent random streams, one for each source of variation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from taut.errors import ArgumentError

if TYPE_CHECKING:
    import torch

SEARCH = "hyperparameter_search"

#: The sources of variation that the paper names; an experiment may add names of its own.
SOURCES = ("data_split", "data_order", "augmentation", "initialisation", "dropout", SEARCH)

_FINGERPRINT_WORDS = 64


class Streams:
    """The random streams of one run: every source of variation has its own seed and its own counter-based generator.

    A stream depends on its source's name, that source's seed and an index, and on nothing else: moving one seed leaves
    every other stream bit-identical, and so does drawing more or less from another stream. Equal seeds give equal
    streams in every study, so that two experiments can be compared on the same draws.

    Args:
        seeds: seed by source, whole numbers from 0.

    Raises:
        ArgumentError: if a name is empty, or a seed is not a whole number from 0.
    """

    def __init__(self, seeds: Mapping[str, int]) -> None:
        for source, seed in seeds.items():
            if not isinstance(source, str) or not source:
                raise ArgumentError("seeds", source, expected="names of sources as keys, e.g. 'initialisation'")
            if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
                raise ArgumentError(f"seeds[{source!r}]", seed, expected="a whole number from 0")
        self._seeds = {source: int(seed) for source, seed in seeds.items()}

    @property
    def seeds(self) -> dict[str, int]:
        """Seed by source."""
        return dict(self._seeds)

    def moved(self, source: str, seed: int) -> Streams:
        """The same streams, but for one source."""
        self._sequence(source, 0)
        return Streams(self._seeds | {source: seed})

    def generator(self, source: str, index: int = 0) -> np.random.Generator:
        """A fresh numpy generator (Philox) at the start of a stream.

        Args:
            source: which source of variation.
            index: which of its sub-streams, e.g. the epoch or the worker.

        Raises:
            ArgumentError: if the source has no seed here, or the index is not a whole number from 0.
        """
        return np.random.Generator(np.random.Philox(self._sequence(source, index)))

    def torch_generator(self, source: str, index: int = 0) -> torch.Generator:
        """A fresh torch generator on the CPU; torch's Mersenne Twister uses 32 bits of the stream's seed.

        Raises:
            ArgumentError: as `generator`.
        """
        import torch

        word = int(self._sequence(source, index).generate_state(1, np.uint32)[0])
        return torch.Generator().manual_seed(word)

    def fingerprint(self, source: str, index: int = 0) -> str:
        """Hash of the first words of a stream: equal fingerprints, equal streams.

        Raises:
            ArgumentError: as `generator`.
        """
        words = self.generator(source, index).integers(0, 2**63, _FINGERPRINT_WORDS, dtype=np.int64)
        return hashlib.sha256(words.astype("<i8").tobytes()).hexdigest()[:16]

    def _sequence(self, source: str, index: int) -> np.random.SeedSequence:
        if source not in self._seeds:
            known = ", ".join(self._seeds) or "none"
            raise ArgumentError(
                "source",
                source,
                expected=f"a source with a seed: {known}",
                fix="name it in the experiment's `sources`, so that its seed is drawn and recorded",
            )
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
            raise ArgumentError("index", index, expected="a whole number from 0")
        # The name goes in as four words of its hash, so that no order or number of sources matters.
        name = np.frombuffer(hashlib.sha256(source.encode()).digest()[:16], dtype="<u4")
        return np.random.SeedSequence(self._seeds[source], spawn_key=(*(int(word) for word in name), int(index)))

    def __repr__(self) -> str:
        return f"Streams({self._seeds})"


def drawn_seed(seed: int, *path: str | int) -> int:
    """A seed of 53 bits for one place in a study, so that JSON carries it exactly."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11


def fit_sources(sources: Iterable[str]) -> tuple[str, ...]:
    """The sources that a fit draws from: all but the search."""
    return tuple(source for source in sources if source != SEARCH)
