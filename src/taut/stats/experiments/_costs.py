"""What an estimator would cost, before it is run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from taut.errors import ArgumentError, MeasurementError
from taut.stats.experiments._experiment import SCORE, Experiment, Run, check_experiment, execute
from taut.stats.experiments._parts import Part
from taut.stats.experiments._search import defaults
from taut.stats.experiments._streams import drawn_seed
from taut.stats.experiments._threads import single_thread


@dataclass(frozen=True)
class StudyCost:
    """The price of a part of a study.

    Attributes:
        fits: exactly how many fits it takes.
        hours: by the wall, if all fits take equally long and the workers are never idle.
    """

    fits: int
    hours: float


def plan_cost(part: Part, experiment: Experiment, seconds_per_fit: float, *, workers: int = 1) -> StudyCost:
    """Fits and hours of an estimator, or of another part of a study.

    Args:
        part: e.g. an `IdealEstimator`.
        experiment: what it would run.
        seconds_per_fit: e.g. from `time_fit`.
        workers: fits at a time.

    Raises:
        ArgumentError: if the seconds or the workers are not positive, or the part does not fit the experiment.
    """
    if not 0 < seconds_per_fit < float("inf"):
        raise ArgumentError("seconds_per_fit", seconds_per_fit, expected="a positive number of seconds")
    if workers < 1:
        raise ArgumentError("workers", workers, expected="a whole number from 1")
    fits = part.fits(experiment)
    return StudyCost(fits, -(-fits // workers) * seconds_per_fit / 3600)


def time_fit(experiment: Experiment, hyperparameters: Mapping[str, float] | None = None) -> float:
    """Seconds that the second of two fits takes; the first one pays for loading.

    Args:
        experiment: what to fit, on one thread.
        hyperparameters: by default those of its space.

    Raises:
        ArgumentError: if it is no experiment.
        MeasurementError: if the fit fails.
    """
    check_experiment(experiment)
    if hyperparameters is None:
        hyperparameters = defaults(getattr(experiment, "space", {}))
    seconds = 0.0
    for repeat in range(2):
        seeds = {source: drawn_seed(repeat, "time", source) for source in experiment.sources}
        with single_thread():
            start = time.perf_counter()
            outcome = execute(experiment, Run(SCORE, hyperparameters, seeds))
            seconds = time.perf_counter() - start
        if outcome.score is None:
            raise MeasurementError(f"{experiment.name}: the fit to be timed failed: {outcome.error}")
    return seconds
