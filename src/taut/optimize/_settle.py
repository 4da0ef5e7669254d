"""Making each trial say what became of it once the search is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taut.optimize._planner import GRAPH, THREADS, Incumbent, Trial
from taut.optimize._program import runs_on_one_thread

if TYPE_CHECKING:
    from taut.optimize._search import Search


def settle(search: Search) -> None:
    """Make each trial's status agree with what the artefact holds."""
    if not search.proven and search.incumbent.steps:
        assert search.final_quality is not None
        why = search.headline.summary() if search.headline else search.judge.explain(search.final_quality)
        search.warnings.append(
            f"The stack {' + '.join(search.incumbent.names)} was not proven against the best eager setting "
            f"({why}), so nothing of it is kept."
        )
        search.headline = None
    if not search.proven:
        search.incumbent = Incumbent(search.base, (), search.eager_threads)
    for trial in search.trials:
        if trial.status != "kept" or _holds(search, trial):
            continue
        if not search.proven:
            trial.status, trial.reason = "rejected", f"{trial.reason}; the whole stack was not proven against eager"
        elif trial.name == THREADS and runs_on_one_thread(search.incumbent):
            trial.status = "rejected"
            trial.reason = f"{trial.reason}; the compiled program, which was faster, runs on one"
        elif search.incumbent.program is not None and trial.step in search.replaced:
            trial.status = "rejected"
            trial.reason = f"{trial.reason}; the compiled program, which was faster, does not stand on it"
        elif trial.name not in (GRAPH, THREADS):
            trial.status, trial.reason = "rejected", f"{trial.reason}; alone. {_on_top(search, trial)}"


def stop(search: Search) -> None:
    """Make each trial's status agree with a search that ended early."""
    for trial in search.trials:
        if trial.status == "kept" and trial.name not in (GRAPH, THREADS) and not _holds(search, trial):
            trial.status, trial.reason = "not_tried", f"{trial.reason}; alone. Stopped before it was stacked"


def later_trials(search: Search, alone: Trial) -> list[Trial]:
    """The trials of the same technique on top of others."""
    return [trial for trial in search.trials if trial.step == alone.step and len(trial.on_top_of) > 1]


def _holds(search: Search, trial: Trial) -> bool:
    return trial.step in search.incumbent.steps


def _on_top(search: Search, alone: Trial) -> str:
    """What became of a technique that paid alone."""
    later = later_trials(search, alone)
    if not later and alone.name in search.incumbent.names:
        return "It was kept with other options"
    if not later:
        return "Another technique leaves it nothing to do"
    return f"On top of {', '.join(later[-1].on_top_of[1:])}: {later[-1].reason}"
