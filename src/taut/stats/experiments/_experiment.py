"""What an experiment is, and one run of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from taut.errors import ArgumentError
from taut.stats.experiments._search import Space, as_number
from taut.stats.experiments._streams import SEARCH, Streams

SCORE, VALIDATE = "score", "validate"
NOISE, TOGETHER = RESERVED = "numerical_noise", "all_together"


@runtime_checkable
class Experiment(Protocol):
    """A benchmark as a function of hyper-parameters and random streams; the higher the score, the better.

    An experiment draws all its randomness from the streams of the sources that it names, so that equal seeds give equal
    scores. Plain attributes do for its properties.
    """

    @property
    def name(self) -> str:
        """What reports call it; part of every run's identity, so change it when the code changes meaning."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of variation that a fit draws from."""
        ...

    def run(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        """Fit, and score on the test set."""
        ...


@runtime_checkable
class SearchableExperiment(Experiment, Protocol):
    """An experiment whose hyper-parameters can be searched."""

    @property
    def space(self) -> Space:
        """The range of every hyper-parameter."""
        ...

    def validate(self, hyperparameters: Mapping[str, float], streams: Streams) -> float:
        """Fit, and score on the validation set."""
        ...


@dataclass(frozen=True)
class Run:
    """One fit of an experiment.

    Attributes:
        phase: "score" for a score on the test set, "validate" for one on the validation set.
        hyperparameters: value by name.
        seeds: seed by source.
        repeat: tells apart runs that are equal in everything, as when numerical noise is measured.

    Raises:
        ArgumentError: a hyper-parameter is no finite number.
    """

    phase: str
    hyperparameters: Mapping[str, float]
    seeds: Mapping[str, int]
    repeat: int = 0

    def __post_init__(self) -> None:
        numbers = {str(name): as_number(f"hyper-parameter {name}", one) for name, one in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", numbers)

    def identity(self, experiment: str) -> str:
        """Hash of the experiment's name and of all that the run depends on."""
        parts = [experiment, self.phase, dict(self.hyperparameters), dict(self.seeds), self.repeat]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]

    def to_dict(self) -> dict[str, Any]:
        """The run as plain JSON data."""
        return {
            "phase": self.phase,
            "hyperparameters": dict(self.hyperparameters),
            "seeds": dict(self.seeds),
            "repeat": self.repeat,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Run:
        """The run that `to_dict` described."""
        return cls(data["phase"], data["hyperparameters"], data["seeds"], data["repeat"])


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        score: None if it failed.
        seconds: that it took, by the wall.
        error: why it failed.
    """

    score: float | None
    seconds: float
    error: str | None = None


def check_experiment(experiment: object, *, search: bool = False) -> None:
    """Refuse what is not an experiment.

    Raises:
        ArgumentError: naming what is missing.
    """
    protocol = SearchableExperiment if search else Experiment
    needed = ("name", "sources", "run", "space", "validate") if search else ("name", "sources", "run")
    missing = [name for name in needed if not hasattr(experiment, name)]
    if missing:
        reason = " (a hyper-parameter search needs a space and a validation score)" if search else ""
        raise ArgumentError(
            "experiment", experiment, expected=f"{protocol.__name__}; it lacks {', '.join(missing)}{reason}"
        )
    sources = experiment.sources  # pyright: ignore[reportAttributeAccessIssue]
    if (
        not isinstance(sources, (tuple, list))
        or not sources
        or not all(isinstance(one, str) and one for one in sources)
    ):
        raise ArgumentError("experiment.sources", sources, expected="a tuple of names, at least one")
    if len(set(sources)) != len(sources):
        raise ArgumentError("experiment.sources", sources, expected="names that differ")
    if SEARCH in sources:
        raise ArgumentError(
            "experiment.sources", sources, expected=f"no {SEARCH!r}: the search draws from it, a fit does not"
        )
    reserved = [name for name in sources if name in RESERVED]
    if reserved:
        raise ArgumentError(
            "experiment.sources", sources, expected=f"other names than {reserved[0]!r}, which reports use themselves"
        )


def execute(experiment: Experiment, run: Run) -> Outcome:
    """Make one run; what the experiment raises becomes the outcome's error."""
    start = time.perf_counter()
    try:
        streams = Streams(run.seeds)
        hyperparameters = dict(run.hyperparameters)  # the run's own are recorded, and stay as they were asked for
        if run.phase == VALIDATE:
            score = experiment.validate(hyperparameters, streams)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            score = experiment.run(hyperparameters, streams)
        score = float(score)
        error = None if math.isfinite(score) else f"the score is {score}"
    except (Exception, SystemExit) as failure:  # what calls sys.exit ends its run, not the study
        score, error = math.nan, f"{type(failure).__name__}: {failure}"[:500]
    return Outcome(score if error is None else None, round(time.perf_counter() - start, 6), error)
