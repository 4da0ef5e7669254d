"""What a study found, read from its store alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from taut.errors import ArgumentError, ArtefactError, MeasurementError
from taut.stats._quantile import Interval
from taut.stats.experiments._experiment import NOISE, TOGETHER
from taut.stats.experiments._store import StudyStore
from taut.stats.experiments._variance import (
    CorrelatedScores,
    bootstrap_deviation,
    correlated_scores,
    deviation_ratio,
    deviations,
    shares_of_first_place,
    standard_deviation,
)

# The estimator that the others' deviations are compared with.
_BASE = "fixed:init"


@dataclass(frozen=True)
class SourceVariance:
    """The scores of runs that differ in one source alone.

    Attributes:
        source: its name; "all_together" and "numerical_noise" stand for themselves.
        runs: scores there are.
        mean: of the scores.
        std: with its chi-square interval.
        bootstrap: the same with its bootstrap interval.
        first: share of bootstrap resamples in which this source moves the score most, None for what competes with none.
    """

    source: str
    runs: int
    mean: float
    std: Interval
    bootstrap: Interval
    first: float | None


@dataclass(frozen=True)
class EstimatorSummary:
    """The scores of one estimator.

    Attributes:
        label: "ideal" or "fixed:" and what is redrawn.
        runs: scores there are.
        mean: of all scores.
        std: of one score: of the ideal estimator's, else within a repetition.
        std_of_mean: of the mean of k scores; for the biased estimator only where it was repeated.
        correlated: of the biased estimator, where it was repeated.
        worth: runs of the ideal estimator whose mean varies as much, where both are there.
    """

    label: str
    runs: int
    mean: float
    std: float | None
    std_of_mean: Interval | None
    correlated: CorrelatedScores | None
    worth: float | None = None


@dataclass(frozen=True)
class StudyReport:
    """What a study found.

    Attributes:
        study: its name.
        experiment: name of the experiment.
        complete: whether every run has been made.
        runs: how many have been made.
        failures: how many of them failed.
        seconds: that they took together.
        sources: variance by source, the largest first.
        verdict: which source dominates, in a sentence.
        estimators: in the study's order.
        ratios: deviation of every biased estimator's mean over that of "fixed:init", where both were repeated.
        scores: (repetitions, k) scores by part, None where a run failed or was not made.
        errors: of up to five failures.
        code_versions: of the experiment's code that opened the store; more than one may have made the runs.
    """

    study: str
    experiment: str
    complete: bool
    runs: int
    failures: int
    seconds: float
    sources: tuple[SourceVariance, ...]
    verdict: str
    estimators: tuple[EstimatorSummary, ...]
    ratios: dict[str, Interval]
    scores: dict[str, list[list[float | None]]]
    errors: tuple[str, ...]
    code_versions: int = 1

    @property
    def warning(self) -> str:
        """What is to be known before the figures are believed, or an empty text."""
        if self.code_versions < 2:
            return ""
        return (
            f"the experiment's code changed under the name {self.experiment!r} ({self.code_versions} versions): runs "
            "of all of them may stand here; if scores changed, give it another name and start a new store"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report in plain text."""
        state = "" if self.complete else " (NOT COMPLETE)"
        lines = [
            f"{self.study}: {self.experiment}, {self.runs:,} runs, {self.failures} failed, {self.seconds:,.0f} s{state}"
        ]
        if self.warning:
            lines.append(f"warning: {self.warning}")
        if self.sources:
            lines += ["", f"{'source':<24}{'runs':>5}{'mean':>10}{'std':>10}  {'95 % chi-square':<22}bootstrap"]
            lines += [
                f"{one.source:<24}{one.runs:>5}{one.mean:>10.5f}{one.std.estimate:>10.5f}  {_ends(one.std):<22}"
                f"{_ends(one.bootstrap)}"
                for one in self.sources
            ]
            lines += ["", self.verdict]
        if self.estimators:
            lines += [
                "",
                f"{'estimator':<24}{'runs':>5}{'mean':>10}{'std':>10}{'std(mean)':>10}  {'95 %':<20}"
                f"{'ideal runs':>10}  rho",
            ]
            for one in self.estimators:
                single = "-" if one.std is None else f"{one.std:.5f}"
                mean = "-" if one.std_of_mean is None else f"{one.std_of_mean.estimate:.5f}"
                ends = "" if one.std_of_mean is None else _ends(one.std_of_mean)
                rho = "" if one.correlated is None else f"{one.correlated.rho.estimate:.3f} {_ends(one.correlated.rho)}"
                worth = "-" if one.worth is None else f"{one.worth:.1f}"
                figures = f"{one.mean:>10.5f}{single:>10}{mean:>10}  {ends:<20}{worth:>10}  {rho}"
                lines.append(f"{one.label:<24}{one.runs:>5}{figures}".rstrip())
        if self.ratios:
            lines.append("")
            lines += [
                f"std of the mean, {label} over fixed:init: {ratio.estimate:.2f} {_ends(ratio)}: {_judge(ratio)}"
                for label, ratio in self.ratios.items()
            ]
        lines += [f"failed: {error}" for error in self.errors]
        return lines


def summarise(store: StudyStore) -> StudyReport:
    """Report on what a store holds; of an unfinished study, on what there is.

    Raises:
        ArtefactError: if its header does not describe a study.
    """
    header = store.header
    try:
        study, experiment = str(header["study"]), str(header["experiment"])
        kinds = [(str(part["kind"]), str(part["label"])) for part in header["parts"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{store.folder}: its header does not describe a study") from error
    roles = _roles(store)
    scores = _tables(store, roles)
    estimators = [
        _estimator(kind, label, scores[label]) for kind, label in kinds if kind != "source" and _values(scores, label)
    ]
    sigma = next((one.std for one in estimators if one.label == "ideal"), None)
    estimators = [replace(one, worth=_worth(one, sigma)) for one in estimators]
    sources = _sources(scores)
    failed = [one for one in store.outcomes.values() if one.score is None]
    made = {role for role, identity in roles.items() if identity in store.outcomes}
    return StudyReport(
        study=study,
        experiment=experiment,
        complete=sum(rows * columns for rows, columns in _places(store).values()) == len(made),
        runs=len(store.outcomes),
        failures=len(failed),
        seconds=sum(one.seconds for one in store.outcomes.values()),
        sources=tuple(sources),
        verdict=_verdict(sources, scores),
        estimators=tuple(estimators),
        ratios=_ratios(estimators, scores),
        scores=scores,
        errors=tuple(str(one.error) for one in failed[:5]),
        code_versions=max(1, len(store.code)),
    )


def comparable_parts(store: StudyStore) -> list[str]:
    """Parts whose scores can be exported, the one that is best compared first.

    The ideal estimator's scores are independent. Those of runs that redraw all sources at once are so but for the
    hyper-parameters that they share; those of a biased estimator share a search, so they need a correlation.

    Raises:
        ArtefactError: the header does not describe a study.
    """
    labels = dict.fromkeys(label for label, _, _ in _roles(store))
    best = [label for label in ("ideal", f"source:{TOGETHER}") if label in labels]
    return [*best, *(label for label in labels if label not in best)]


def score_rows(store: StudyStore, part: str | None = None) -> list[dict[str, str | float]]:
    """The scores of one part as rows that `taut compare` reads: one for every run that was scored on the test set.

    Equal `seed`s mean equal seeds of every source, so that two studies of equal seed and parts can be paired by it.

    Args:
        store: of the study.
        part: as the report names it; by default the first of `comparable_parts`, of "ideal" and
            "source:all_together" only.

    Raises:
        ArgumentError: the study has no such part, or none that is compared without being asked for.
        ArtefactError: the header does not describe a study.
    """
    known = comparable_parts(store)
    if part is None and known and known[0] in ("ideal", f"source:{TOGETHER}"):
        part = known[0]
    if part not in known:
        raise ArgumentError(
            "part",
            part,
            expected=f"one of {', '.join(known) or 'none: no run has been asked for'}",
            fix="scores of different parts are not alike: compare one part of each study",
        )
    rows: list[dict[str, str | float]] = []
    chosen = {identity: None for (label, _, _), identity in _roles(store).items() if label == part}
    for identity in chosen:
        outcome = store.outcomes.get(identity)
        if outcome is not None and outcome.score is not None:
            run = store.runs[identity]
            drawn = json.dumps([run["seeds"], run["repeat"]], sort_keys=True)
            seed = hashlib.sha256(drawn.encode()).hexdigest()[:12]
            rows.append({"part": part, "seed": f"s{seed}", "score": outcome.score})
    return rows


def _places(store: StudyStore) -> dict[str, tuple[int, int]]:
    """Repetitions and replicates of every part, as the header has them."""
    try:
        return {
            str(label): (int(repetitions), int(replicates))
            for part in store.header["parts"]
            for label, (repetitions, replicates) in part["places"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{store.folder}: its header does not describe a study") from error


def _roles(store: StudyStore) -> dict[tuple[str, int, int], str]:
    """The store's places that the study still has: its file may have had more, or larger, parts once."""
    shapes = _places(store)

    def has(label: str, repetition: int, replicate: int) -> bool:
        repetitions, replicates = shapes.get(label, (0, 0))
        return repetition < repetitions and replicate < replicates

    return {role: identity for role, identity in store.roles.items() if has(*role)}


def _tables(store: StudyStore, roles: dict[tuple[str, int, int], str]) -> dict[str, list[list[float | None]]]:
    shapes: dict[str, tuple[int, int]] = {}
    for label, repetition, replicate in roles:
        before = shapes.get(label, (0, 0))
        shapes[label] = (max(before[0], repetition + 1), max(before[1], replicate + 1))
    tables: dict[str, list[list[float | None]]] = {
        label: [[None] * columns for _ in range(rows)] for label, (rows, columns) in shapes.items()
    }
    for (label, repetition, replicate), identity in roles.items():
        outcome = store.outcomes.get(identity)
        tables[label][repetition][replicate] = None if outcome is None else outcome.score
    return tables


def _values(scores: dict[str, list[list[float | None]]], label: str) -> list[float]:
    return [value for row in scores.get(label, []) for value in row if value is not None]


def _sources(scores: dict[str, list[list[float | None]]]) -> list[SourceVariance]:
    groups = {label.removeprefix("source:"): _values(scores, label) for label in scores if label.startswith("source:")}
    groups = {source: values for source, values in groups.items() if len(values) >= 2}
    rivals = [source for source in groups if source not in (TOGETHER, NOISE)]
    shares: dict[str, float] = {}
    if rivals:
        found = shares_of_first_place([np.array(groups[source]) for source in rivals])
        shares = dict(zip(rivals, found, strict=True))
    rows = [
        SourceVariance(
            source,
            len(values),
            float(np.mean(values)),
            standard_deviation(np.array(values)),
            bootstrap_deviation(np.array(values)),
            shares.get(source),
        )
        for source, values in groups.items()
    ]
    return sorted(rows, key=lambda row: (row.first is None, -row.std.estimate))


def _verdict(sources: list[SourceVariance], scores: dict[str, list[list[float | None]]]) -> str:
    rivals = [one for one in sources if one.first is not None]
    if len(rivals) < 2:
        return "cannot decide which source dominates: fewer than two have two scores"
    top, second = rivals[:2]
    if top.std.estimate == 0:
        return "cannot decide which source dominates: no source moves the score"
    said = f"{top.source} moves the score most (first in {top.first:.0%} of resamples)"
    if second.std.estimate == 0:
        return f"{said}; no other source moves it"
    pairs = [
        (a, b)
        for a, b in zip(*(scores[f"source:{one.source}"][0] for one in (top, second)), strict=False)
        if a is not None and b is not None
    ]
    try:
        ratio = deviation_ratio(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    except MeasurementError:
        return f"{said}; too few runs to compare it with {second.source}"
    clear = "it dominates" if ratio.low > 1 else f"whether it exceeds {second.source} is not decided"
    return f"{said}; its deviation is {ratio.estimate:.2f} {_ends(ratio)} times that of {second.source}: {clear}"


def _estimator(kind: str, label: str, table: list[list[float | None]]) -> EstimatorSummary:
    values = np.array([value for row in table for value in row if value is not None])
    whole = _balanced(table, _usable(table))
    std = std_of_mean = correlated = None
    if kind == "ideal" and len(values) >= 2:
        single = standard_deviation(values)
        root = np.sqrt(len(values))
        std = single.estimate
        std_of_mean = Interval(std / root, single.low / root, single.high / root, single.confidence)
    elif min(whole.shape) >= 2:
        std = float(np.sqrt(np.mean(deviations(whole) ** 2)))
        if std > 0:
            correlated = correlated_scores(whole)
            std_of_mean = correlated.std_of_mean
    elif len(values) >= 2 and len(table) == 1:
        std = float(deviations(values))
    return EstimatorSummary(label, len(values), float(values.mean()), std, std_of_mean, correlated)


def _worth(estimator: EstimatorSummary, sigma: float | None) -> float | None:
    mean = estimator.std_of_mean
    return None if sigma is None or mean is None or mean.estimate == 0 else (sigma / mean.estimate) ** 2


def _usable(table: list[list[float | None]]) -> list[int]:
    """Repetitions of which half of the scores are there: of an unfinished study those that are about done."""
    return [index for index, row in enumerate(table) if 2 * sum(value is not None for value in row) >= len(row)]


def _balanced(table: list[list[float | None]], repetitions: list[int]) -> np.ndarray:
    """As many scores of each of these repetitions as the one that lacks most has."""
    rows = [[value for value in table[index] if value is not None] for index in repetitions]
    width = min((len(row) for row in rows), default=0)
    return np.array([row[:width] for row in rows]).reshape(len(rows), width)


def _ratios(estimators: list[EstimatorSummary], scores: dict[str, list[list[float | None]]]) -> dict[str, Interval]:
    """In pairs: repetition i of every estimator has the same search and the same seeds where it redraws nothing."""
    repeated = [one.label for one in estimators if one.correlated is not None]
    if _BASE not in repeated:
        return {}
    found = {}
    for label in repeated:
        common = sorted(set(_usable(scores[label])) & set(_usable(scores[_BASE])))
        one, base = (_balanced(scores[name], common).mean(axis=1) for name in (label, _BASE))
        if label != _BASE and len(common) >= 3 and np.ptp(base) > 0:
            found[label] = deviation_ratio(one, base)
    return found


def _judge(ratio: Interval) -> str:
    if ratio.high <= 1:
        return "smaller"
    return "larger" if ratio.low > 1 else "no evidence of a difference"


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.4f}, {interval.high:.4f}]"
