"""Trying the compiler: a program of what the search kept, against what it kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from taut.compile import CompiledModel
from taut.errors import TautError
from taut.optimize._compiled import COMPILE, compile_graph, described, propose_schedule, suited
from taut.optimize._planner import GRAPH, Incumbent, Steps, Trial, stored_bytes
from taut.transform import PASSES, apply_recipe

if TYPE_CHECKING:
    from taut.optimize._search import Search

_SCHEDULING = 0.08
"""The share of the budget in which schedules are compared before the best of them meets what was kept."""
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_UNTIL = 0.9
"""The share of the budget that is spent when this is done."""


def try_compiled(search: Search) -> None:
    """Measure programs of what was kept, and keep the one that pays.

    The first stands on all passes that suit a program; where some of these change results, another stands on the rest
    alone: generated float32 kernels may be faster than what ATen does with few bits.
    """
    trial = search.planner.plan_compiling()
    search.trials.append(trial)
    if trial.reason or search.is_late(trial, _UNTIL):
        return
    kept = search.incumbent
    steps = suited(kept.steps)
    exact = tuple(step for step in steps if not PASSES[step[0]].changes_numerics)
    search.replaced = kept.steps
    _try_on(search, trial, kept, steps)
    if exact != steps and search.settings.goal != "size":
        other = dataclasses.replace(trial, status="not_tried", reason="", comparison=None, quality=None, threads=None)
        search.trials.append(other)
        if _try_on(search, other, kept, exact) and trial.status == "kept":
            dropped = ", ".join(name for name, _ in steps if name not in dict(exact))
            trial.status, trial.reason = "rejected", f"{trial.reason}; it is faster without {dropped}"


def _try_on(search: Search, trial: Trial, kept: Incumbent, steps: Steps) -> bool:
    """Compile what some passes make, and take it where it pays; says in the trial why it is kept or not."""
    trial.on_top_of = (GRAPH, *(name for name, _ in steps))
    search.say("compiling")
    try:
        with search.off_the_clock():
            graph = kept.graph if steps == kept.steps else apply_recipe(search.base, steps)[0]
            program = compile_graph(graph)
    except TautError as error:
        trial.status, trial.reason = "not_applicable", f"cannot be compiled: {error.message}"
        return False
    except Exception as error:  # a defect of the compiler must not cost what was found without it
        first = (str(error).splitlines() or [""])[0][:200]
        trial.status, trial.reason = "rejected", f"the compiler failed: {type(error).__name__}: {first}"
        return False
    trial.summary, trial.stored_bytes = described(program), stored_bytes(graph)
    if not program.program.kernels:
        trial.status, trial.reason = "not_applicable", "every operator would run on ATen, as it does now"
        return False
    search.say(f"trying a compiled program of {' + '.join(trial.on_top_of)}")
    candidate = compiled(dataclasses.replace(kept, graph=graph, steps=steps), program)
    trial.threads = (search.incumbent.threads, candidate.threads)
    if not search.measure(trial, candidate, search.incumbent, until=_UNTIL):
        return False
    search.incumbent = candidate
    return True


def try_scheduled(search: Search) -> None:
    """Measure the program that was kept on several workers, where a schedule promises to pay."""
    kept, workers = search.incumbent, search.settings.threads[-1]
    before = next((trial for trial in search.trials if trial.name == COMPILE and trial.status == "kept"), None)
    if kept.program is None or before is None or workers < 2 or search.spent > search.settings.budget * _UNTIL:
        return
    search.say(f"looking for a schedule on {workers} workers")
    try:
        found = propose_schedule(
            kept.program, search.workload.batches[0], workers, _SCHEDULING * search.settings.budget
        )
    except TautError as error:
        before.summary = f"{before.summary}; no schedule on {workers} workers: {error.message}"
        return
    if found is None:
        before.summary = f"{before.summary}; no schedule on {workers} workers is surely faster"
        return
    program, options = found
    trial = dataclasses.replace(before, options=options, comparison=None, quality=None, reason="", status="not_tried")
    trial.summary = f"{described(program)}; its steps run on {workers} workers"
    search.trials.append(trial)
    candidate = dataclasses.replace(kept, steps=(*kept.steps[:-1], (COMPILE, options)), program=program)
    trial.threads = (kept.threads, candidate.threads)
    search.say(f"trying the compiled program on {workers} workers")
    if search.measure(trial, candidate, kept, until=_UNTIL):
        search.incumbent = candidate
        before.status, before.reason = "rejected", f"{before.reason}; it is faster on {workers} workers"


def compiled(kept: Incumbent, program: CompiledModel, options: Mapping[str, Any] = _NO_OPTIONS) -> Incumbent:
    """The program of an incumbent's graph in its place."""
    made = dataclasses.replace(kept, steps=(*kept.steps, (COMPILE, dict(options))), program=program)
    return dataclasses.replace(made, threads=1) if runs_on_one_thread(made) else made


def runs_on_one_thread(incumbent: Incumbent) -> bool:
    """Whether threads are of no use: a program runs on the thread that calls it, apart from operators on ATen."""
    return incumbent.program is not None and not incumbent.program.report.fallbacks
