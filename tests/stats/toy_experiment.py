"""An experiment of microseconds for the tests of studies: a score that is a known sum of its sources' draws.

The environment makes it misbehave: TOY_KILL_AT names a file with a countdown of runs, at whose end the process gets
SIGKILL (the parent with TOY_KILL=parent); TOY_FAIL makes the runs fail whose draw is above it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from taut.stats import (
    FixedHyperparameterEstimator,
    IdealEstimator,
    RandomSearch,
    Range,
    Streams,
    Study,
    VarianceBySource,
)

EFFECTS = {"data_split": 3.0, "data_order": 1.0, "initialisation": 0.5}


class Toy:
    name = "toy-1"
    sources = tuple(EFFECTS)
    space: ClassVar = {"rate": Range(0.0, 1.0, 0.5), "penalty": Range(1e-4, 1.0, 0.01, log=True)}

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, float], dict[str, int]]] = []

    def run(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        return self._score("score", hyperparameters, streams)

    def validate(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        return self._score("validate", hyperparameters, streams)

    def _score(self, phase: str, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        self.asked.append((phase, dict(hyperparameters), streams.seeds))
        draws = {source: float(streams.generator(source).standard_normal()) for source in self.sources}
        if "TOY_KILL_AT" in os.environ:
            _count_down(Path(os.environ["TOY_KILL_AT"]))
        if draws["data_split"] > float(os.environ.get("TOY_FAIL", "inf")):
            raise ValueError("the toy is broken")
        score = sum(EFFECTS[source] * draw for source, draw in draws.items())
        return score - (hyperparameters["rate"] - 0.3) ** 2 + (0.01 if phase == "validate" else 0.0)


def _count_down(path: Path) -> None:
    left = int(path.read_text()) - 1
    path.write_text(str(left))
    if left == 0:
        os.kill(os.getppid() if os.environ.get("TOY_KILL") == "parent" else os.getpid(), signal.SIGKILL)


def make_study(runs: int = 6) -> Study:
    search = RandomSearch(4)
    parts = (
        VarianceBySource(runs, noise=2, search=search, searches=3),
        IdealEstimator(runs, search),
        FixedHyperparameterEstimator(runs, search, "init", repetitions=3),
        FixedHyperparameterEstimator(runs, search, "all", repetitions=3),
    )
    return Study("toy study", Toy(), parts)


study = make_study()
