"""Searching for hyper-parameters."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from taut.errors import ArgumentError, MeasurementError, MissingExtraError

Point = dict[str, float]

#: Yields points to try together, receives their validation scores (None where a fit failed), returns the best point.
Trials = Generator[list[Point], Sequence[float | None], Point]


@dataclass(frozen=True)
class Range:
    """The values that a hyper-parameter may take.

    Attributes:
        low: lower end.
        high: upper end.
        default: the value where no search is made.
        log: whether values are spread evenly over the logarithm.
        integer: whether values are rounded to whole numbers.
        minimum: no search goes below, however it widens the range.
        maximum: no search goes above.

    Raises:
        ArgumentError: if low < high does not hold, or a logarithmic range does not start above 0.
    """

    low: float
    high: float
    default: float
    log: bool = False
    integer: bool = False
    minimum: float = -math.inf
    maximum: float = math.inf

    def __post_init__(self) -> None:
        for name in ("low", "high", "default"):
            expected = "finite numbers, low < high"
            object.__setattr__(self, name, as_number(f"Range {name}", getattr(self, name), expected))
        if not self.low < self.high:
            raise ArgumentError("Range", (self.low, self.high), expected="two finite numbers, low < high")
        if self.log and self.low <= 0:
            raise ArgumentError(
                "Range", self.low, expected="low > 0 in a logarithmic range", fix="choose a floor such as 1e-6"
            )

    def ends(self) -> tuple[float, float]:
        """Both ends on the scale on which values are spread evenly."""
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)

    def value(self, position: float) -> float:
        """The value at a position on that scale."""
        value = min(max(math.exp(position) if self.log else position, self.minimum), self.maximum)
        return float(round(value)) if self.integer else float(value)


Space = Mapping[str, Range]


class Search(Protocol):
    """A way to choose hyper-parameters by their validation score; higher is better."""

    def count(self, space: Space) -> int:
        """Fits that a search makes."""
        ...

    def trials(self, space: Space, generator: np.random.Generator) -> Trials:
        """Search; the generator is that of the source `hyperparameter_search`."""
        ...

    def describe(self) -> str:
        """The search in a few words."""
        ...


@dataclass(frozen=True)
class RandomSearch:
    """Independent draws; every range is widened by half a step of the grid that would take as many trials.

    Source: Accounting for Variance in Machine Learning Benchmarks (MLSys 2021), appendix E.

    Attributes:
        budget: how many points to try.
    """

    budget: int

    def __post_init__(self) -> None:
        _check_budget(self.budget)

    def count(self, space: Space) -> int:
        """Fits that a search makes."""
        _check(space)
        return self.budget

    def trials(self, space: Space, generator: np.random.Generator) -> Trials:
        """Draw all points at once."""
        _check(space)
        steps = max(2, round(self.budget ** (1 / len(space))))
        points: list[Point] = [{} for _ in range(self.budget)]
        for name, values in space.items():
            low, high = values.ends()
            half = (high - low) / (steps - 1) / 2
            for point, position in zip(points, generator.uniform(low - half, high + half, self.budget), strict=True):
                point[name] = values.value(float(position))
        return best_of(points, (yield points))

    def describe(self) -> str:
        """The search in a few words."""
        return f"random search, {self.budget} trials"


@dataclass(frozen=True)
class NoisyGrid:
    """A full grid whose ends are moved at random by up to half a step, and which is then spaced evenly again.

    Source: Accounting for Variance in Machine Learning Benchmarks (MLSys 2021), appendix E.

    Attributes:
        steps: points along every hyper-parameter.
    """

    steps: int

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 2:
            raise ArgumentError("steps", self.steps, expected="a whole number of points, 2 or more")

    def count(self, space: Space) -> int:
        """Fits that a search makes."""
        _check(space)
        return self.steps ** len(space)

    def trials(self, space: Space, generator: np.random.Generator) -> Trials:
        """Lay out the grid."""
        _check(space)
        axes = []
        for values in space.values():
            low, high = values.ends()
            half = (high - low) / (self.steps - 1) / 2
            first = generator.uniform(low - half, low + half)
            last = generator.uniform(high - half, high + half)
            axes.append([values.value(float(position)) for position in np.linspace(first, last, self.steps)])
        points = [dict(zip(space, point, strict=True)) for point in itertools.product(*axes)]
        return best_of(points, (yield points))

    def describe(self) -> str:
        """The search in a few words."""
        return f"noisy grid, {self.steps} steps"


@dataclass(frozen=True)
class OptunaSearch:
    """Optuna's tree-structured Parzen estimator, one trial after another (needs the extra `study`).

    Attributes:
        budget: how many points to try.
    """

    budget: int

    def __post_init__(self) -> None:
        _check_budget(self.budget)

    def count(self, space: Space) -> int:
        """Fits that a search makes."""
        _check(space)
        return self.budget

    def trials(self, space: Space, generator: np.random.Generator) -> Trials:
        """Ask Optuna for a point at a time.

        Raises:
            MissingExtraError: if Optuna is not installed.
        """
        _check(space)
        try:
            optuna: Any = importlib.import_module("optuna")
        except ImportError as error:
            raise MissingExtraError("optuna", extra="study", needed_for="OptunaSearch") from error
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=int(generator.integers(2**32)))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        optuna.logging.set_verbosity(before)
        points: list[Point] = []
        scores: list[float | None] = []
        for _ in range(self.budget):
            trial = study.ask()
            point = {name: values.value(trial.suggest_float(name, *values.ends())) for name, values in space.items()}
            (score,) = yield [point]
            points.append(point)
            scores.append(score)
            if score is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, score)
        return best_of(points, scores)

    def describe(self) -> str:
        """The search in a few words."""
        return f"Optuna, {self.budget} trials"


def best_of(points: Sequence[Point], scores: Sequence[float | None]) -> Point:
    """The point with the highest score, the first of equals; failed fits are out of the running.

    Raises:
        MeasurementError: if every fit failed.
    """
    ranked = [(score, -index) for index, score in enumerate(scores) if score is not None]
    if not ranked:
        raise MeasurementError(
            f"all {len(points)} fits of a hyper-parameter search failed",
            fix="make the experiment run on its own first, or narrow the ranges",
        )
    return dict(points[-max(ranked)[1]])


def defaults(space: Space) -> Point:
    """Every hyper-parameter at its default."""
    return {name: values.default for name, values in space.items()}


def as_number(name: str, value: object, expected: str = "a finite number") -> float:
    """A finite number as one of Python's own, which JSON can carry; numpy's are taken too.

    Raises:
        ArgumentError: it is none.
    """
    number = value.item() if isinstance(value, np.generic) else value
    if not isinstance(number, (int, float)) or not math.isfinite(number):
        raise ArgumentError(name, value, expected=expected)
    return number


def _check_budget(budget: int) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ArgumentError("budget", budget, expected="a whole number of trials, 1 or more")


def _check(space: Space) -> None:
    if not space:
        raise ArgumentError("space", dict(space), expected="at least one hyper-parameter with its Range")
