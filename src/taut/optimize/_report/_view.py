"""What of a report the page shows, in which order: groups, caps, charts and the sentence at its head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from . import _charts, _format
from ._schema import Candidate, CandidateStatus, Layer, OperatorTime, Report


@dataclass(frozen=True)
class Limits:
    """How much the page shows: rows of each table, and characters of each text."""

    candidates: int
    operators: int
    rows: int
    characters: int


@dataclass(frozen=True)
class Group:
    """The candidates of one decision, each with its number on the page."""

    status: CandidateStatus
    title: str
    rows: tuple[tuple[int, Candidate], ...]


@dataclass(frozen=True)
class OperatorRow:
    """One operator with its two bars; `ratio` is before over after."""

    operator: OperatorTime
    before_bar: Markup
    after_bar: Markup
    ratio: float | None


@dataclass(frozen=True)
class LayerRow:
    """One layer with the bars of its size."""

    layer: Layer
    before_bar: Markup
    after_bar: Markup


@dataclass(frozen=True)
class View:
    """Everything the template needs beside the report itself."""

    title: str
    explanation: str
    groups: tuple[Group, ...]
    hidden_candidates: int
    scatter: Markup | None
    scatter_rows: tuple[tuple[int, Candidate], ...]
    operators: tuple[OperatorRow, ...]
    other_operators: OperatorTime | None
    hidden_operators: int
    has_after: bool
    baseline_bars: tuple[Markup, ...]
    layers: tuple[LayerRow, ...]
    hidden_layers: int
    has_errors: bool


_GROUP_TITLES: dict[CandidateStatus, str] = {
    "kept": "Kept",
    "rejected": "Rejected",
    "peer": "Peers, measured for comparison only",
    "not_applicable": "Not applicable",
    "not_tried": "Not tried",
}


def build_view(report: Report, limits: Limits) -> View:
    """Chooses, orders and draws what the page shows of `report`."""
    groups, hidden = _groups(report.candidates, limits.candidates)
    plotted = tuple(
        (number, candidate)
        for group in groups
        for number, candidate in group.rows
        if candidate.predicted is not None and candidate.comparison is not None
    )
    operators = sorted(report.operators, key=_larger_time, reverse=True)
    shown, rest = operators[: limits.operators], operators[limits.operators :]
    layers = report.layers[: limits.operators * 4]
    largest = max((max(layer.bytes_before, layer.bytes_after) for layer in layers), default=0)
    slowest = max((baseline.seconds_per_call for baseline in report.baselines), default=0.0)
    title, explanation = _outcome(report)
    return View(
        title=title,
        explanation=explanation,
        groups=groups,
        hidden_candidates=hidden,
        scatter=_charts.scatter(_points(plotted)) if plotted else None,
        scatter_rows=plotted,
        operators=_operator_rows(shown),
        other_operators=_sum(rest) if rest else None,
        hidden_operators=len(rest),
        has_after=any(operator.after_seconds is not None for operator in operators),
        baseline_bars=tuple(
            _charts.bar(baseline.seconds_per_call, slowest, "after" if baseline.chosen else "before")
            for baseline in report.baselines
        ),
        layers=tuple(
            LayerRow(
                layer,
                _charts.bar(layer.bytes_before, largest, "before"),
                _charts.bar(layer.bytes_after, largest, "after"),
            )
            for layer in layers
        ),
        hidden_layers=len(report.layers) - len(layers),
        has_errors=any(layer.error is not None for layer in layers),
    )


def _outcome(report: Report) -> tuple[str, str]:
    kept = [candidate for candidate in report.candidates if candidate.status == "kept"]
    tried = sum(candidate.comparison is not None or candidate.quality is not None for candidate in report.candidates)
    if not kept:
        if report.status == "partial":
            return "Nothing kept so far", f"The job ended early, after {_plural(tried, 'candidate')} had been measured."
        measured = f"{_plural(tried, 'candidate')} measured; none was kept." if tried else "No candidate was measured."
        return "Nothing paid on this host", f"{measured} The bundle holds the model unchanged."
    # A technique that paid alone and on top of others has two rows, but was kept once.
    names = "; ".join(dict.fromkeys(candidate.title for candidate in kept))
    explanation = f"Kept: {names}."
    headline = report.headline
    size = report.size_bytes
    if report.goal == "size" and size is not None and size.before and size.after is not None:
        explanation += f" {size.before:,} bytes of parameters and buffers became {size.after:,}."
        return _smaller(size.before, size.after), explanation
    if headline is None:
        return f"{_plural(len(kept), 'technique')} kept", explanation + " The end-to-end speed-up was not measured."
    shown = _format.speedup(headline)
    if headline.verdict == "faster":
        return f"{shown} faster end to end", explanation
    if headline.verdict == "slower":
        return f"{shown} the speed of the baseline: slower", explanation
    return f"{shown}: no evidence of a speed-up", explanation


def _smaller(before: int, after: int) -> str:
    if after >= before:
        return "Not smaller"
    return f"{_format.percent(1 - after / before)} smaller"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _groups(candidates: Sequence[Candidate], most: int) -> tuple[tuple[Group, ...], int]:
    groups: list[Group] = []
    number = 0
    for status, title in _GROUP_TITLES.items():
        members = [candidate for candidate in candidates if candidate.status == status][: most - number]
        if members:
            groups.append(Group(status, title, tuple(enumerate(members, start=number + 1))))
            number += len(members)
    return tuple(groups), len(candidates) - number


def _points(rows: Iterable[tuple[int, Candidate]]) -> list[_charts.Point]:
    points: list[_charts.Point] = []
    for number, candidate in rows:
        measured = candidate.comparison
        if candidate.predicted is not None and measured is not None:
            points.append(
                _charts.Point(
                    str(number), candidate.predicted, measured.ratio, measured.low, measured.high, measured.verdict
                )
            )
    return points


def _larger_time(operator: OperatorTime) -> float:
    return max(operator.before_seconds or 0.0, operator.after_seconds or 0.0)


def _operator_rows(operators: Sequence[OperatorTime]) -> tuple[OperatorRow, ...]:
    largest = max((_larger_time(operator) for operator in operators), default=0.0)
    return tuple(
        OperatorRow(
            operator,
            _charts.bar(operator.before_seconds, largest, "before"),
            _charts.bar(operator.after_seconds, largest, "after"),
            _ratio(operator),
        )
        for operator in operators
    )


def _ratio(operator: OperatorTime) -> float | None:
    if not operator.before_seconds or not operator.after_seconds:
        return None
    ratio = operator.before_seconds / operator.after_seconds
    return ratio if 0 < ratio < math.inf else None


def _sum(operators: Sequence[OperatorTime]) -> OperatorTime:
    def total(times: list[float]) -> float | None:
        value = math.fsum(min(time, 1e300) for time in times)
        return value if times else None

    return OperatorTime(
        module_path="",
        op="",
        before_seconds=total([item.before_seconds for item in operators if item.before_seconds is not None]),
        after_seconds=total([item.after_seconds for item in operators if item.after_seconds is not None]),
    )
