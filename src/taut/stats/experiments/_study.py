"""Studies: parts of one experiment, run in parallel and resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taut.errors import ArgumentError, Interrupted, MeasurementError, ModelLoadError
from taut.stats.experiments._executors import Executor, InProcess, Make
from taut.stats.experiments._experiment import Experiment, Outcome, check_experiment
from taut.stats.experiments._load import load_named
from taut.stats.experiments._parts import Part, Request, side_by_side
from taut.stats.experiments._report import StudyReport, summarise
from taut.stats.experiments._source import source_fingerprint
from taut.stats.experiments._store import StudyStore

#: Told what is being done, and which share of the study is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Study:
    """An experiment and what is to be found out about it.

    Attributes:
        name: of the study.
        experiment: what is run.
        parts: estimators and variances; runs that two parts have in common are made once.
        seed: all seeds of the study are drawn from it; studies of equal seed and parts give paired runs.

    Raises:
        ArgumentError: if the name, the experiment or the parts cannot be used, before any run is made.
    """

    name: str
    experiment: Experiment
    parts: Sequence[Part] = field(default_factory=tuple)
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ArgumentError("name", self.name, expected="a name for the study")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ArgumentError("seed", self.seed, expected="a whole number from 0")
        check_experiment(self.experiment)
        if isinstance(self.parts, str) or not isinstance(self.parts, Sequence):
            raise ArgumentError("parts", self.parts, expected="a list of parts")
        for part in self.parts:
            if not all(hasattr(part, name) for name in ("label", "fits", "steps", "describe")):
                raise ArgumentError("parts", part, expected="parts of a study, such as VarianceBySource(30)")
        labels = [part.label for part in self.parts]
        if not labels or len(set(labels)) != len(labels):
            raise ArgumentError("parts", labels, expected="at least one part, and no two with the same label")
        _ = self.fits

    @property
    def fits(self) -> int:
        """Fits that the parts take by themselves; runs that they share are made once, so it is the most."""
        return sum(part.fits(self.experiment) for part in self.parts)

    def run(
        self,
        store: Path | str | None = None,
        *,
        executor: Executor | None = None,
        retry_failures: bool = False,
        progress: Progress | None = None,
    ) -> StudyReport:
        """Make all runs that the store lacks, and report.

        Args:
            store: folder of the store; without one, nothing outlives the call.
            executor: where runs are made; by default one after another in this process.
            retry_failures: make failed runs of an earlier call again; otherwise they stay failures.
            progress: told of the progress.

        Raises:
            ArgumentError: if the store belongs to another study.
            StorageError: if the store cannot be written.
            Interrupted: on Ctrl-C; every run that was finished is in the store.
            MeasurementError: if a worker died, or every fit of a search failed.
        """
        header = {
            "study": self.name,
            "experiment": self.experiment.name,
            "seed": self.seed,
            "sources": list(self.experiment.sources),
            "parts": [part.describe(self.experiment) for part in self.parts],
            "fits": self.fits,
            "code": [code] if (code := source_fingerprint(self.experiment)) else [],
        }
        opened = StudyStore() if store is None else StudyStore.open(Path(store), header)
        if store is None:
            opened.header = header
        retry = {identity for identity, one in opened.outcomes.items() if one.score is None and retry_failures}
        with opened, (executor or InProcess()).session(self.experiment) as make:
            driver = _Driver(self, opened, make, retry, progress)
            try:
                driver.drive()
            except KeyboardInterrupt as error:
                raise Interrupted(
                    f"{self.name}: stopped with {driver.finished} runs done",
                    fix="run it again with the same store: it goes on where it stopped" if store else None,
                ) from error
        return summarise(opened)


class _Driver:
    """Takes the parts through their steps."""

    def __init__(self, study: Study, store: StudyStore, make: Make, retry: set[str], progress: Progress | None) -> None:
        self._study, self._store, self._make, self._retry = study, store, make, retry
        self._progress = progress or (lambda doing, share: None)
        self._asked: set[str] = set()
        self.finished = 0

    def drive(self) -> None:
        """Answer the requests of all parts, side by side, until none is left."""
        study = self._study
        steps = side_by_side([part.steps(study.experiment, study.seed) for part in study.parts])
        scores: list[float | None] | None = None
        while True:
            try:
                requests = next(steps) if scores is None else steps.send(scores)
            except StopIteration:
                return
            except MeasurementError as error:  # a search of which every fit failed
                failed = [one.error for one in self._store.outcomes.values() if one.error is not None]
                raise MeasurementError(f"{error.message}; the last one with {failed[-1]}", fix=error.fix) from error
            scores = self._answer(requests)

    def _answer(self, requests: list[Request]) -> list[float | None]:
        identities = [request.run.identity(self._study.experiment.name) for request in requests]
        pending = {}
        for identity, request in zip(identities, requests, strict=True):
            if identity in self._asked:
                continue
            self._asked.add(identity)
            if identity in self._store.outcomes and identity not in self._retry:
                self.finished += 1
            else:
                pending[identity] = request.run
        # First the places, so that a report of an unfinished study knows what its runs are.
        places = zip(requests, identities, strict=True)
        self._store.assign((one.role, identity) for one, identity in places if one.role is not None)
        order = list(pending)
        self._tell()
        for index, outcome in self._make([pending[identity] for identity in order]):
            self._store.record(order[index], pending[order[index]].to_dict(), outcome)
            self.finished += 1
            self._tell(outcome)
        return [self._store.outcomes[identity].score for identity in identities]

    def _tell(self, outcome: Outcome | None = None) -> None:
        failed = outcome is not None and outcome.score is None
        doing = f"{self._study.name}: {'a run failed' if failed else 'running'}"
        self._progress(doing, min(1.0, self.finished / self._study.fits))


def load_study(reference: str) -> Study:
    """The study that "path.py:name" or "module:name" names.

    Raises:
        ArgumentError: the text has neither form, or there is no such file.
        ModelLoadError: importing it raised, or there is no study of that name.
    """
    found = load_named(reference)
    if not isinstance(found, Study):
        raise ModelLoadError(f"{reference}: is of type {type(found).__name__}", expected="a taut.stats.Study")
    return found
