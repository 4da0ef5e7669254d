"""What a scheduling found out: stages, strategies, predicted and measured times, the bound, and the gap to it."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping
from typing import Any

from taut.runtime import Program

NOTE = "schedule"


@dataclasses.dataclass(frozen=True)
class StageTime:
    """A stage with what it was predicted to take, and what it took.

    Attributes:
        strategy: "concurrent", "intra", or "merge" for one convolution in place of several.
        groups: for each group the modules that its steps come from, in order.
        predicted_seconds: measured on data of its own, before the program was made.
        measured_seconds: in the program, from the end of the stage before to its own end.
        estimated: whether the prediction was added up from that of its steps, for want of time or of cores to measure.
    """

    strategy: str
    groups: tuple[tuple[str, ...], ...]
    predicted_seconds: float
    measured_seconds: float
    estimated: bool = False


@dataclasses.dataclass(frozen=True)
class CandidateTime:
    """A program that was measured.

    Attributes:
        name: "sequential", "stages", "greedy", "list", "split", "intra", "shortest" or "moldable", with "merged "
            before it where convolutions were merged.
        predicted_seconds: of a call.
        measured_seconds: of a call, the least of several means taken in turns with the other candidates.
    """

    name: str
    predicted_seconds: float
    measured_seconds: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The paired comparison of the best candidate with the sequential program.

    Attributes:
        candidate: its name.
        verdict: "faster", "no evidence" or "slower".
        ratio: how many times faster.
        low: end of the interval; None where there were too few pairs for one.
        high: end of the interval, likewise.
        confidence: of the interval.
        pairs: that were timed.
    """

    candidate: str
    verdict: str
    ratio: float
    low: float | None
    high: float | None
    confidence: float
    pairs: int


@dataclasses.dataclass(frozen=True)
class TimelineSpan:
    """One step on the timeline of a call: seconds from its start, the worker, and the module that it comes from."""

    worker: int
    begin: float
    end: float
    label: str
    kind: str


@dataclasses.dataclass(frozen=True)
class ScheduleReport:
    """How a program was scheduled.

    Attributes:
        workers: threads, or most streams at a time.
        kept: the name of the candidate that was kept.
        staged: the name of the candidate that consists of the best stages.
        seconds: of a call of it.
        critical_path: seconds of the longest chain of steps of the kept program, each shared evenly by all workers
            where it can be: a lower bound.
        work_by_workers: seconds of all its steps shared evenly: another.
        stages: the best stages with barriers between them, whether they were kept or not.
        candidates: every program that was measured.
        untimed: names of programs that were not measured, for want of time.
        verdict: the best candidate against the sequential program; None where none was left to compare.
        operators: that the search placed.
        states: that the search saw.
        transitions: that the search saw.
        requests: stages that could have been measured.
        measured: stages that were.
        search_seconds: that the search took.
        estimated_steps: whose time on all workers was not measured, for want of time or of cores.
        complete: whether no stage that could have been cheaper was left out for want of time or of cores.
        timelines: when steps ran, by candidate; of the kept one and the stages.
        lane: what a worker is, "worker" or "stream".
        device: where it ran.
    """

    workers: int
    kept: str
    staged: str
    seconds: float
    critical_path: float
    work_by_workers: float
    stages: tuple[StageTime, ...]
    candidates: tuple[CandidateTime, ...]
    verdict: Verdict | None
    operators: int
    states: int
    transitions: int
    requests: int
    measured: int
    search_seconds: float
    complete: bool
    timelines: Mapping[str, tuple[TimelineSpan, ...]] = dataclasses.field(default_factory=dict)
    lane: str = "worker"
    device: str = "cpu"
    untimed: tuple[str, ...] = ()
    estimated_steps: int = 0

    @property
    def bound(self) -> float:
        """Seconds that no schedule of the kept program's steps can beat, as far as times of single steps tell.

        They are taken apart from each other; where the whole takes less than they say, it is the bound itself.
        """
        return min(max(self.critical_path, self.work_by_workers), self.seconds)

    @property
    def gap(self) -> float:
        """How much longer a call of the kept program takes than the bound, as a share of it."""
        return self.seconds / self.bound - 1 if self.bound > 0 else 0.0

    @property
    def predicted_total(self) -> float:
        """Seconds that a call of the program of stages was predicted to take, or else the stages together."""
        stages = sum(stage.predicted_seconds for stage in self.stages)
        return next((one.predicted_seconds for one in self.candidates if one.name == self.staged), stages)

    @property
    def measured_total(self) -> float:
        """Seconds that a call of the program of stages takes; those of the stages where it was not timed."""
        stages = sum(stage.measured_seconds for stage in self.stages)
        return next((one.measured_seconds for one in self.candidates if one.name == self.staged), stages)

    @property
    def stage_error(self) -> float | None:
        """How far the prediction of the median stage is off, as a share of the measured time; None without any."""
        errors = [
            abs(stage.predicted_seconds / stage.measured_seconds - 1)
            for stage in self.stages
            if stage.measured_seconds > 0
        ]
        return statistics.median(errors) if errors else None

    def candidate(self, name: str) -> CandidateTime:
        """The candidate of that name."""
        return next(one for one in self.candidates if one.name == name)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, with the bound and the gap."""
        return {**dataclasses.asdict(self), "bound": self.bound, "gap": self.gap}


def noted(report: ScheduleReport) -> dict[str, str]:
    """What a program tells of its schedule, without the timelines."""
    document = report.to_dict()
    del document["timelines"]
    return {NOTE: json.dumps(document, allow_nan=False)}


def schedule_of(program: Program) -> ScheduleReport | None:
    """How a program was scheduled, without timelines; None where that is not noted, or not as `save` notes it."""
    try:
        return _report(json.loads(program.notes.get(NOTE, "null")))
    except (ValueError, RecursionError, TypeError, KeyError, OverflowError):
        return None


def _report(document: Any) -> ScheduleReport:
    fields = {field.name for field in dataclasses.fields(ScheduleReport)} - {"timelines"}
    given = {name: document[name] for name in fields}
    given["stages"] = tuple(
        StageTime(
            _text(stage["strategy"]),
            tuple(tuple(map(_text, group)) for group in stage["groups"]),
            _seconds(stage["predicted_seconds"]),
            _seconds(stage["measured_seconds"]),
            bool(stage["estimated"]),
        )
        for stage in document["stages"]
    )
    given["candidates"] = tuple(
        CandidateTime(_text(one["name"]), _seconds(one["predicted_seconds"]), _seconds(one["measured_seconds"]))
        for one in document["candidates"]
    )
    given["verdict"] = None if document["verdict"] is None else _verdict(document["verdict"])
    for name in ("seconds", "critical_path", "work_by_workers", "search_seconds"):
        given[name] = _seconds(document[name])
    for name in ("workers", "operators", "states", "transitions", "requests", "measured", "estimated_steps"):
        given[name] = int(document[name])
    given["untimed"] = tuple(map(_text, document["untimed"]))
    for name in ("kept", "staged", "lane", "device"):
        given[name] = _text(document[name])
    given["complete"] = bool(document["complete"])
    if not all(one.measured_seconds > 0 for one in given["candidates"]):
        raise ValueError("candidates")
    return ScheduleReport(**given)


def _verdict(document: Any) -> Verdict:
    ends = [None if document[name] is None else _seconds(document[name]) for name in ("low", "high")]
    words = [_text(document[name]) for name in ("candidate", "verdict")]
    ratio, confidence = (_seconds(document[name]) for name in ("ratio", "confidence"))
    return Verdict(words[0], words[1], ratio, ends[0], ends[1], confidence, int(document["pairs"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(str(value))
    return float(value)
