"""The parts that a study is made of: estimators of a benchmark's score, and the variance that each source causes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from taut.errors import ArgumentError
from taut.stats.experiments._experiment import NOISE, SCORE, TOGETHER, VALIDATE, Experiment, Run, check_experiment
from taut.stats.experiments._search import Point, Search, Space, as_number, defaults
from taut.stats.experiments._streams import SEARCH, Streams, drawn_seed

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A run that a part asks for, and the place that its score takes: (part, repetition, replicate), or None."""

    run: Run
    role: tuple[str, int, int] | None = None


#: Yields runs that may be made together, and receives their scores, None where a run failed.
Steps = Generator[list[Request], Sequence[float | None], T]


class Part(Protocol):
    """One part of a study."""

    @property
    def label(self) -> str:
        """What it is called in the store and in reports; no two parts of a study share it."""
        ...

    def fits(self, experiment: Experiment) -> int:
        """How many fits it takes, exactly."""
        ...

    def steps(self, experiment: Experiment, seed: int) -> Steps[None]:
        """Ask for the runs."""
        ...

    def describe(self, experiment: Experiment) -> dict[str, Any]:
        """The part as plain JSON data, for the store's header; `places` has (repetitions, replicates) by role."""
        ...


@dataclass(frozen=True)
class IdealEstimator:
    """k times: draw every source, search, fit, score. Unbiased with variance sigma^2 / k, for k (T + 1) fits.

    Source: Accounting for Variance in Machine Learning Benchmarks (MLSys 2021), algorithm 1.

    Attributes:
        k: how many scores.
        search: with T trials.
    """

    k: int
    search: Search

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1)
        _check_search(self.search)

    @property
    def label(self) -> str:
        """Its name in the store."""
        return "ideal"

    def fits(self, experiment: Experiment) -> int:
        """K (T + 1)."""
        return self.k * (self.search.count(_space(experiment)) + 1)

    def steps(self, experiment: Experiment, seed: int) -> Steps[None]:
        """All searches side by side, then the final fits."""
        space = _space(experiment)
        seeds = [_draw(experiment, seed, "ideal", replicate) for replicate in range(self.k)]
        searches = [
            _search(self.search, space, one, drawn_seed(seed, "ideal", replicate, SEARCH))
            for replicate, one in enumerate(seeds)
        ]
        found = yield from side_by_side(searches)
        yield [
            Request(Run(SCORE, point, one), (self.label, 0, replicate))
            for replicate, (point, one) in enumerate(zip(found, seeds, strict=True))
        ]

    def describe(self, experiment: Experiment) -> dict[str, Any]:
        """The estimator as plain data."""
        places = {self.label: [1, self.k]}
        return {"kind": "ideal", "label": self.label, "search": self.search.describe(), "places": places}


@dataclass(frozen=True)
class FixedHyperparameterEstimator:
    """One search, then k scores that redraw some of the sources: T + k fits.

    Biased: the scores share the search and the sources that stay, so their mean's variance has a floor that no k
    lowers. It takes `repetitions` of the whole estimator, each with new draws, to see the floor. Repetitions of two
    estimators with the same search share it. Source: Accounting for Variance in Machine Learning Benchmarks (MLSys
    2021), algorithm 2.

    Attributes:
        k: how many scores.
        search: with T trials.
        vary: "init" for the initialisation, "data" for the split, "all" for every source, or names of sources.
        repetitions: how many times the estimator is run.
    """

    k: int
    search: Search
    vary: str | tuple[str, ...] = "all"
    repetitions: int = 1

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1)
        _at_least("repetitions", self.repetitions, 1)
        _check_search(self.search)

    @property
    def label(self) -> str:
        """Its name in the store."""
        return f"fixed:{self.vary if isinstance(self.vary, str) else '+'.join(self.vary)}"

    def fits(self, experiment: Experiment) -> int:
        """T + k for every repetition."""
        self.varied(experiment)
        return self.repetitions * (self.search.count(_space(experiment)) + self.k)

    def varied(self, experiment: Experiment) -> tuple[str, ...]:
        """The sources that are redrawn.

        Raises:
            ArgumentError: if the experiment has no such source.
        """
        presets = {"init": ("initialisation",), "data": ("data_split",), "all": experiment.sources}
        names = presets.get(self.vary, (self.vary,)) if isinstance(self.vary, str) else tuple(self.vary)
        unknown = [name for name in names if name not in experiment.sources]
        if unknown or not names:
            raise ArgumentError(
                "vary",
                self.vary,
                expected=f'"init", "data", "all" or sources of the experiment: {", ".join(experiment.sources)}',
            )
        return names

    def steps(self, experiment: Experiment, seed: int) -> Steps[None]:
        """All repetitions side by side."""
        space, varied = _space(experiment), self.varied(experiment)
        kept = [_draw(experiment, seed, "fixed", repetition) for repetition in range(self.repetitions)]
        searches = [
            _search(self.search, space, one, drawn_seed(seed, "fixed", repetition, SEARCH))
            for repetition, one in enumerate(kept)
        ]
        found = yield from side_by_side(searches)
        requests = []
        for repetition, (point, one) in enumerate(zip(found, kept, strict=True)):
            for replicate in range(self.k):
                redrawn = _draw(experiment, seed, "redrawn", repetition, replicate)
                seeds = {source: (redrawn if source in varied else one)[source] for source in experiment.sources}
                requests.append(Request(Run(SCORE, point, seeds), (self.label, repetition, replicate)))
        yield requests

    def describe(self, experiment: Experiment) -> dict[str, Any]:
        """The estimator as plain data."""
        places = {self.label: [self.repetitions, self.k]}
        settings = {"vary": list(self.varied(experiment)), "search": self.search.describe()}
        return {"kind": "fixed", "label": self.label, **settings, "places": places}


@dataclass(frozen=True)
class VarianceBySource:
    """Redraw one source at a time while the others stay: which one moves the score most?

    Source: Accounting for Variance in Machine Learning Benchmarks (MLSys 2021), section 2.2.

    Attributes:
        runs: how many draws of every source.
        hyperparameters: of all runs; by default those of the experiment's space.
        sources: by default all of the experiment.
        together: also redraw all sources at once.
        noise: runs with all seeds fixed, which show the numerical noise; 0 for none.
        search: also repeat this search with its own seed alone redrawn.
        searches: how many times.
    """

    runs: int
    hyperparameters: Point | None = None
    sources: tuple[str, ...] | None = None
    together: bool = True
    noise: int = 0
    search: Search | None = None
    searches: int = 20

    def __post_init__(self) -> None:
        _at_least("runs", self.runs, 2)
        if self.noise != 0:
            _at_least("noise", self.noise, 2)
        if self.search is not None:
            _check_search(self.search)
            _at_least("searches", self.searches, 2)
        for name, value in (self.hyperparameters or {}).items():
            as_number(f"hyperparameters[{name!r}]", value)
        if self.sources is not None and (
            not isinstance(self.sources, (tuple, list)) or len(set(self.sources)) != len(self.sources)
        ):
            raise ArgumentError("sources", self.sources, expected="a tuple of names that differ")

    @property
    def label(self) -> str:
        """Its name in the store."""
        return "source"

    def fits(self, experiment: Experiment) -> int:
        """Runs x sources, and what was asked for besides."""
        groups = len(self.varied(experiment)) + self.together
        searches = 0 if self.search is None else self.searches * (self.search.count(_space(experiment)) + 1)
        return self.runs * groups + self.noise + searches

    def varied(self, experiment: Experiment) -> tuple[str, ...]:
        """The sources that are redrawn, one at a time.

        Raises:
            ArgumentError: if the experiment has no such source.
        """
        names = experiment.sources if self.sources is None else self.sources
        unknown = [name for name in names if name not in experiment.sources]
        if unknown or not names:
            raise ArgumentError(
                "sources", self.sources, expected=f"sources of the experiment: {', '.join(experiment.sources)}"
            )
        return tuple(names)

    def steps(self, experiment: Experiment, seed: int) -> Steps[None]:
        """All runs at once; the searches beside them."""
        point = self.hyperparameters
        if point is None:
            space = getattr(experiment, "space", None)
            point = defaults(space) if space else {}
        base = _draw(experiment, seed, "base")
        requests = []
        for replicate in range(self.runs):
            drawn = _draw(experiment, seed, "varied", replicate)
            changes = [(source, {source: drawn[source]}) for source in self.varied(experiment)]
            if self.together:
                changes.append((TOGETHER, drawn))
            requests += [
                Request(Run(SCORE, point, base | change), (f"{self.label}:{source}", 0, replicate))
                for source, change in changes
            ]
        requests += [
            Request(Run(SCORE, point, base, repeat), (f"{self.label}:{NOISE}", 0, repeat))
            for repeat in range(self.noise)
        ]
        if self.search is None:
            yield requests
            return
        searches = [
            _search(self.search, _space(experiment), base, drawn_seed(seed, "varied", replicate, SEARCH))
            for replicate in range(self.searches)
        ]
        _, found = yield from side_by_side([_once(requests), side_by_side(searches)])
        yield [
            Request(Run(SCORE, best, base), (f"{self.label}:{SEARCH}", 0, replicate))
            for replicate, best in enumerate(found)
        ]

    def describe(self, experiment: Experiment) -> dict[str, Any]:
        """The part as plain data."""
        counts = dict.fromkeys(self.varied(experiment), self.runs)
        counts |= {TOGETHER: self.runs} if self.together else {}
        counts |= {NOISE: self.noise} if self.noise else {}
        counts |= {SEARCH: self.searches} if self.search is not None else {}
        searched = None if self.search is None else self.search.describe()
        places = {f"{self.label}:{source}": [1, count] for source, count in counts.items()}
        return {"kind": "source", "label": self.label, "search": searched, "places": places}


def _draw(experiment: Experiment, seed: int, *place: str | int) -> dict[str, int]:
    """New seeds for every source, for one place of a study."""
    return {source: drawn_seed(seed, *place, source) for source in experiment.sources}


def _space(experiment: Experiment) -> Space:
    check_experiment(experiment, search=True)
    return experiment.space  # pyright: ignore[reportAttributeAccessIssue]


def _search(search: Search, space: Space, seeds: dict[str, int], search_seed: int) -> Steps[Point]:
    """One search with every other source as it is."""
    trials = search.trials(space, Streams({SEARCH: search_seed}).generator(SEARCH))
    scores: Sequence[float | None] | None = None
    while True:
        try:
            points = next(trials) if scores is None else trials.send(scores)
        except StopIteration as stop:
            return stop.value
        scores = yield [Request(Run(VALIDATE, point, seeds)) for point in points]


def _once(requests: list[Request]) -> Steps[None]:
    yield requests


def side_by_side(steps: Sequence[Steps[Any]]) -> Steps[list[Any]]:
    """Advance several sequences of requests together; their results in the same order."""
    results: list[Any] = [None] * len(steps)
    waiting: dict[int, list[Request]] = {}
    scores: dict[int, Sequence[float | None] | None] = dict.fromkeys(range(len(steps)))
    while scores:
        for index, given in scores.items():
            try:
                waiting[index] = next(steps[index]) if given is None else steps[index].send(given)
            except StopIteration as stop:
                results[index] = stop.value
        if not waiting:
            return results
        answers = yield [request for requests in waiting.values() for request in requests]
        scores, start = {}, 0
        for index, requests in waiting.items():
            scores[index] = answers[start : start + len(requests)]
            start += len(requests)
        waiting = {}
    return results


def _check_search(search: object) -> None:
    missing = [name for name in ("count", "trials", "describe") if not hasattr(search, name)]
    if missing:
        raise ArgumentError(
            "search", search, expected=f"a search such as RandomSearch(50); it lacks {', '.join(missing)}"
        )


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(name, value, expected=f"a whole number from {least}")
