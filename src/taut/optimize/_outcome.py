"""From a finished or interrupted search to the report."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

import taut
from taut.compile import seconds_by_label
from taut.cost import thread_count
from taut.graph import Interpreter, evaluate, graph_cost
from taut.optimize import _report
from taut.optimize._layers import stored_layers
from taut.optimize._planner import Incumbent, Trial, stored_bytes
from taut.optimize._quality import Quality
from taut.optimize._search import Search
from taut.stats import PairedResult, fingerprint, quietness

if TYPE_CHECKING:
    from taut.optimize._prepare import Prepared

_STRUCTURAL = ("input", "constant")


def make_report(prepared: Prepared, search: Search, *, partial: str | None) -> _report.Report:
    """The report of what the search holds now."""
    settings = prepared.settings
    quiet = quietness()
    warnings = [*prepared.warnings, *search.warnings]
    if not quiet.quiet:
        warnings.append("The machine was not quiet: " + "; ".join(quiet.reasons))
    cost = graph_cost(search.base)
    calls = len(search.workload.batches)  # a timed pass runs that many
    return _report.Report(
        taut_version=taut.__version__,
        job=settings.job,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        status="complete" if partial is None else "partial",
        partial_reason=partial,
        model=_report.ModelSummary(
            name=prepared.loaded.name,
            source=prepared.loaded.source,
            parameters=int(cost.parameters),
            nodes=len(search.base.nodes),
            macs=int(evaluate(cost.macs, prepared.sizes)),
        ),
        goal=settings.goal,
        max_drop=settings.limit.amount,
        max_drop_kind="relative" if settings.limit.relative else "absolute",
        budget_seconds=settings.budget,
        spent_seconds=search.spent,
        data=_report.DataSummary(
            samples=prepared.dataset.samples, batches=len(prepared.dataset.batches), source=prepared.dataset.source
        ),
        metric=_metric(prepared, search),
        baselines=tuple(
            _report.Baseline(threads=threads, seconds_per_call=seconds / calls, chosen=threads == search.eager_threads)
            for threads, seconds in sorted(search.baselines.items())
        ),
        headline=_comparison(search.headline, calls, (search.eager_threads, search.incumbent.threads)),
        size_bytes=_report.SizeBytes(before=stored_bytes(search.base), after=stored_bytes(search.incumbent.graph)),
        candidates=tuple(_candidate(trial, calls) for trial in search.trials),
        operators=() if partial else operator_times(prepared, search),
        layers=stored_layers(search.base, search.incumbent.graph, search.incumbent.steps, search.layer_errors),
        host=fingerprint().to_dict(),
        quietness=dataclasses.asdict(quiet),
        warnings=tuple(warnings),
        recipe=_report.Recipe(
            steps=tuple(_report.RecipeStep(name=name, options=options) for name, options in search.incumbent.steps),
            threads=search.incumbent.threads,
            prepared=search.incumbent.prepared,
            command=None if search.incumbent.prepared else prepared.command,
        ),
    )


def _metric(prepared: Prepared, search: Search) -> _report.Metric:
    final = search.final_quality
    return _report.Metric(
        name=prepared.metric.name,
        higher_is_better=prepared.metric.higher_is_better,
        baseline=search.judge.baseline_score,
        final=final.candidate if final and search.proven else None,
        change=_interval(final) if final and search.proven else None,
    )


def _interval(quality: Quality) -> _report.Interval:
    return _report.Interval(low=quality.low, high=quality.high, confidence=quality.confidence)


def _comparison(result: PairedResult | None, calls: int, threads: tuple[int, int] | None) -> _report.Comparison | None:
    if result is None:
        return None
    return _report.Comparison(
        ratio=result.ratio,
        low=result.low if result.low > 0 else None,
        high=result.high if math.isfinite(result.high) else None,
        confidence=result.confidence,
        verdict=result.verdict,
        pairs=result.pairs,
        baseline_seconds=result.baseline_seconds / calls,
        candidate_seconds=result.candidate_seconds / calls,
        clock=result.clock,
        baseline_threads=threads[0] if threads else None,
        candidate_threads=threads[1] if threads else None,
    )


def _candidate(trial: Trial, calls: int) -> _report.Candidate:
    quality = trial.quality
    return _report.Candidate.model_validate(
        {
            "name": trial.name,
            "title": trial.title,
            "options": dict(trial.options),
            "on_top_of": trial.on_top_of,
            "status": trial.status,
            "reason": trial.reason,
            "predicted": trial.predicted,
            "comparison": _comparison(trial.comparison, calls, trial.threads),
            "quality": quality
            and _report.Quality(
                baseline=quality.baseline,
                candidate=quality.candidate,
                change=_interval(quality),
                within_limit=quality.within_limit,
            ),
            "change_summary": trial.summary,
            "stored_bytes": trial.stored_bytes,
        }
    )


def operator_times(prepared: Prepared, search: Search) -> tuple[_report.OperatorTime, ...]:
    """Seconds a call in each module and operator, before (the captured graph) and after.

    A kernel of a compiled program counts for the operator that it starts from, or the last of a chain; the machine's
    own work on sizes and memory is an operator of its own.
    """
    before = _profile(Incumbent(search.base, (), search.eager_threads), prepared)
    after = _profile(search.incumbent, prepared)
    keys = sorted(before.keys() | after.keys(), key=lambda key: -max(before.get(key, 0.0), after.get(key, 0.0)))
    return tuple(
        _report.OperatorTime(
            module_path=path, op=op, before_seconds=before.get((path, op)), after_seconds=after.get((path, op))
        )
        for path, op in keys
    )


def _profile(incumbent: Incumbent, prepared: Prepared) -> dict[tuple[str, str], float]:
    """Median over a few runs of the middle batch, operators of one kind in one module added up."""
    batch = prepared.dataset.batches[len(prepared.dataset.batches) // 2]
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    with thread_count(incumbent.threads), torch.inference_mode():
        if incumbent.program is not None:
            for (path, name), taken in seconds_by_label(incumbent.program, batch).items():
                seconds[path, _kind(name)] += taken
            return dict(seconds)
        interpreter = Interpreter(incumbent.graph)
        runs = [interpreter.profile(*batch) for _ in range(6)][1:]
    for node in incumbent.graph.nodes:
        if node.op not in _STRUCTURAL:
            values = sorted(run.get(node.id, 0.0) for run in runs)
            seconds[node.module_path, _kind(node.op)] += values[len(values) // 2]
    return dict(seconds)


def _kind(op: str) -> str:
    """The operation whatever computes it: "aten.linear.default" and "taut.int8_linear.default" are both "linear"."""
    name = op.split(".")[1] if op.count(".") else op
    for kind in ("convolution", "conv", "linear", "addmm", "batch_norm", "layer_norm", "attention"):
        if kind in name:
            return {"conv": "convolution", "addmm": "linear"}.get(kind, kind)
    return name.strip("_")
