"""Running a prepared job to its result, or to what is finished when the user stops it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from taut.errors import Interrupted, StorageError
from taut.optimize._bundle import write_bundle
from taut.optimize._data import thin_out
from taut.optimize._outcome import make_report
from taut.optimize._prepare import Prepared
from taut.optimize._quality import Judge, collect
from taut.optimize._recipe import Recipe
from taut.optimize._report import Report
from taut.optimize._search import Search
from taut.optimize._session import Session
from taut.optimize._settings import Progress
from taut.optimize._settle import stop
from taut.optimize._workload import choose_workload, seconds_per_batch

_FEWEST_SCORED = 16  # batches


@dataclasses.dataclass(frozen=True)
class Result:
    """What the job found; call it like the model.

    Attributes:
        session: runs the optimised graph.
        report: every figure, measured and modelled apart.
        bundle: the folder that was written, or None.
    """

    session: Session
    report: Report
    bundle: Path | None = None

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """Run the optimised model."""
        return self.session(*inputs, **keywords)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the bundle.

        Raises:
            ArgumentError: the path exists and `force` is False.
            StorageError: it cannot be written; nothing is left behind.
        """
        return write_bundle(Path(path), self.session.graph, self.session.recipe, self.report, force=force)


def run(
    prepared: Prepared,
    work: Callable[[Search], None],
    destination: Path | None,
    *,
    force: bool,
    progress: Progress,
) -> Result:
    """Measure the baseline, let `work` do the job's own part, and write the bundle.

    Args:
        prepared: what the job works on.
        work: what is done with a search; it raises where nothing may become a bundle.
        destination: the bundle to write, or None.
        force: replace a bundle that is there already.
        progress: told what is being done.

    Raises:
        Interrupted: after Ctrl-C; its `result` is what was finished, written if there is a destination.
        StorageError: the bundle cannot be written; its `result` is the finished one.
    """
    search: Search | None = None
    try:
        progress("running the unmodified model", 0.0)
        seconds = seconds_per_batch(prepared.dataset, prepared.eager)
        prepared = _within_budget(prepared, seconds)
        baseline = collect(prepared.eager, prepared.dataset, what="the unmodified model")
        judge = Judge(prepared.dataset, prepared.metric, prepared.settings.limit, baseline)
        workload = choose_workload(prepared.dataset, seconds, budget=prepared.settings.budget)
        search = Search(prepared.settings, prepared.eager, prepared.graph, prepared.sizes, judge, workload, progress)
        work(search)
        search.doing = "timing each operation"
        result = _outcome(prepared, search, partial=None)
    except KeyboardInterrupt as interrupt:
        if search is None or not search.baselines:
            raise Interrupted("stopped before anything was measured") from interrupt
        if prepared.settings.job == "quantize" and not search.incumbent.steps:
            raise Interrupted(f"stopped while {search.doing}; nothing was quantised yet") from interrupt
        stop(search)
        result = _outcome(prepared, search, partial=f"stopped by the user while {search.doing}")
        result = _save(result, destination, force)
        where = f"; what was finished is in {result.bundle}" if result.bundle else ""
        error = Interrupted(f"stopped while {search.doing}{where}")
        error.result = result
        raise error from interrupt
    return _save(result, destination, force)


def _within_budget(prepared: Prepared, seconds: float) -> Prepared:
    """Score candidates on fewer samples where one pass over the data would cost too much of the budget."""
    share = prepared.settings.budget * prepared.settings.scoring_share
    wanted = max(_FEWEST_SCORED, int(share / seconds))
    fewer = thin_out(prepared.dataset, wanted)
    if fewer is prepared.dataset:
        return prepared
    warning = (
        f"Quality and time are those of {fewer.samples} of {prepared.dataset.samples} samples, spread evenly over the "
        "data, since scoring on all of them exceeds the budget; raise --budget to use more."
    )
    return dataclasses.replace(prepared, dataset=fewer, warnings=(*prepared.warnings, warning))


def _outcome(prepared: Prepared, search: Search, *, partial: str | None) -> Result:
    incumbent = search.incumbent
    recipe = Recipe.make(list(incumbent.steps), incumbent.threads, incumbent.prepared)
    report = make_report(prepared, search, partial=partial)
    return Result(Session(incumbent.graph, recipe, report, incumbent.program), report)


def _save(result: Result, destination: Path | None, force: bool) -> Result:
    """Write the bundle if one is wanted; the errors hold the result."""
    if destination is None:
        return result
    try:
        with _deferred_interrupt():
            result = dataclasses.replace(result, bundle=result.save(destination, force=force))
    except StorageError as error:
        error.result = result
        raise
    except KeyboardInterrupt as interrupt:
        left = f"{destination} is whole" if result.bundle else f"{destination} is not written"
        error = Interrupted(f"stopped while writing the bundle; {left}")
        error.result = result
        raise error from interrupt
    return result


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Let a first Ctrl-C wait for the end of the block; a second one does not wait."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        if waiting:
            handler(number, frame)
        waiting = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if waiting:
        handler(signal.SIGINT, None)
