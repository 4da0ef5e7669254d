"""The search: try techniques alone, stack those that pay, prove the stack against the best eager setting."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from taut.errors import TautError
from taut.graph import Graph, Interpreter
from taut.optimize._compiled import (
    COMPILE,
    COMPILE_TITLE,
    compile_graph,
    described,
    on_workers,
    without_compiling,
)
from taut.optimize._peers import measure_peer
from taut.optimize._planner import (
    GRAPH,
    THREADS,
    Incumbent,
    Planner,
    Steps,
    Trial,
    plain_options,
    size_change,
    stored_bytes,
)
from taut.optimize._program import compiled, runs_on_one_thread, try_compiled, try_scheduled
from taut.optimize._quality import Judge, Quality
from taut.optimize._recipe import Preparation
from taut.optimize._settings import Progress, Settings
from taut.optimize._settle import later_trials, settle
from taut.optimize._workload import Workload
from taut.stats import PairedResult, available_cores, compare, measure
from taut.transform import PASSES, Change, apply_recipe

# The share of the budget that is spent by the end of each phase; the proof has its share even if the others overran.
_BASELINE, _GRAPH, _ALONE, _STACK, _THREADS, _PROOF = 0.08, 0.12, 0.45, 0.72, 0.8, 0.2
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 30.0


class Search:
    """One search over one model; its fields hold what is finished at any time, so that Ctrl-C loses nothing.

    Args:
        settings: what the user asked.
        eager: the unmodified model as the user runs it.
        base: its graph.
        sizes: the value of each symbol at the example's sizes.
        judge: scores candidates.
        workload: what is timed.
        progress: told what is being done and which share of the budget is spent.
    """

    def __init__(
        self,
        settings: Settings,
        eager: Callable[..., Any],
        base: Graph,
        sizes: Mapping[str, int],
        judge: Judge,
        workload: Workload,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.eager = eager
        self.base = base
        self.trials: list[Trial] = []
        self.baselines: dict[int, float] = {}
        self.eager_threads = settings.threads[-1]
        self.incumbent = Incumbent(base, (), self.eager_threads)
        self.replaced: Steps = ()
        self.headline: PairedResult | None = None
        self.final_quality: Quality | None = None
        self.proven = False
        self.layer_errors: Mapping[str, float] = {}
        self.warnings: list[str] = []
        self.doing = "starting"
        self.judge = judge
        self.workload = workload
        self._progress = progress
        self._started = time.perf_counter()
        self.planner = Planner(base, sizes, settings)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def say(self, doing: str) -> None:
        """Tell what is being done."""
        self.doing = doing
        self._progress(doing, min(1.0, self.spent / self.settings.budget))

    def compare(self, baseline: Any, candidate: Any, *, until: float, among: int = 1) -> PairedResult:
        """Compare within an equal part of what is left until a share of the budget is spent."""
        left = until * self.settings.budget - self.spent
        clock = "process_cpu" if self.settings.goal == "energy" else "wall"
        most = _LEAST_SECONDS if self.settings.goal == "size" and until < 1 else _MOST_SECONDS
        return compare(
            baseline,
            candidate,
            budget=max(_LEAST_SECONDS, min(most, left / among)),
            clock=clock,
            seed=self.settings.seed,
            progress=lambda _pairs, _seconds: self._progress(self.doing, min(1.0, self.spent / self.settings.budget)),
        )

    def run(self) -> None:
        """Search, then prove."""
        self.begin()
        self._try_graph()
        alone = self._try_alone()
        self._stack(alone)
        if self.settings.wants(THREADS):
            self._choose_threads()
        try_compiled(self)
        try_scheduled(self)
        self._prove()
        self.trials += [measure_peer(self, name) for name in self.settings.peers]

    def replay(self, steps: Steps, threads: int | None) -> None:
        """Apply a given recipe without searching, then prove it.

        Args:
            steps: the passes with their options.
            threads: how many to run on; None for the fastest number.
        """
        self.begin()
        self.say("applying the recipe")
        passes, options = without_compiling(steps)
        self.adopt(*apply_recipe(self.base, passes), threads=threads)
        if options is not None:
            self.say("compiling")
            with self.off_the_clock():
                program = on_workers(compile_graph(self.incumbent.graph), options)
            self.incumbent = compiled(self.incumbent, program, options)
            trial = Trial(COMPILE, COMPILE_TITLE, status="kept", reason="named by the recipe", options=options)
            trial.summary = described(program)
            self.trials.append(trial)
        self.finish(threads)

    def adopt(
        self,
        graph: Graph,
        changes: Sequence[Change],
        *,
        threads: int | None = None,
        prepared: tuple[Preparation, ...] = (),
    ) -> None:
        """Take a result of named passes as the incumbent, in place of what was adopted before.

        Args:
            graph: the result.
            changes: what the passes did.
            threads: how many to run on; None for as many as the best eager setting.
            prepared: what was done to the weights between the passes.
        """
        self.trials = []
        for change in changes:
            name, options = change.pass_name, plain_options(change)
            trial = Trial(name, PASSES[name].title, status="kept", reason="named by the recipe", options=options)
            trial.summary = change.summary
            self.trials.append(trial)
        settled = tuple((change.pass_name, plain_options(change)) for change in changes)
        self.incumbent = Incumbent(graph, settled, min(threads or self.eager_threads, available_cores()), prepared)

    def finish(self, threads: int | None) -> None:
        """Prove what was adopted; where no number of threads is given, on the fastest."""
        if threads is None:
            self._choose_threads()
        self._prove()
        self.trials += [measure_peer(self, name) for name in self.settings.peers]

    @contextlib.contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """What the block takes does not count against the budget, which is for measuring."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - started

    # Baseline

    def begin(self) -> None:
        """Measure the unmodified model on each number of threads."""
        counts = self.settings.threads
        best = counts[-1]
        if len(counts) == 1:
            self.say(f"timing eager with {best} thread(s)")
            self.baselines[best] = measure(self.workload.arm(self.eager, best, "eager")).median
        for other in reversed(counts[:-1]):
            self.say(f"timing eager with {best} and {other} thread(s)")
            result = self.compare(
                self.workload.arm(self.eager, best, f"eager, {best} threads"),
                self.workload.arm(self.eager, other, f"eager, {other} threads"),
                until=_BASELINE,
            )
            self.baselines[best] = result.baseline_seconds
            self.baselines[other] = result.candidate_seconds
            if result.ratio > 1:
                best = other
        self.eager_threads = best
        self.incumbent = dataclasses.replace(self.incumbent, threads=best)

    def _try_graph(self) -> None:
        self.say("running the captured graph")
        trial = Trial(GRAPH, "Run the captured graph instead of the module")
        self.trials.append(trial)
        trial.comparison = self.compare(
            self.workload.arm(self.eager, self.eager_threads, "eager"),
            self.workload.arm(Interpreter(self.base), self.eager_threads, "graph"),
            until=_GRAPH,
        )
        trial.status, trial.reason = "kept", "the artefact runs the graph, so every pass stands on it"

    # Techniques

    def _try_alone(self) -> list[Trial]:
        self.say("predicting what each technique gains")
        paused = time.perf_counter()
        self.planner.calibrate(self.incumbent.threads)
        planned = self.planner.plan(self.incumbent.threads)
        # The budget is for measuring: what weights become, and the host's peaks, are found once, before it runs on.
        self._started += time.perf_counter() - paused
        tried: list[Trial] = []
        for trial, graph in planned:
            self.trials.append(trial)
            if graph is None:
                continue
            left = sum(other is not None for _, other in planned) - len(tried)
            self.say(f"trying {trial.name} alone")
            base = dataclasses.replace(self.incumbent, graph=self.base)
            self.measure(trial, dataclasses.replace(base, graph=graph), base, until=_ALONE, among=left)
            tried.append(trial)
        return tried

    def is_late(self, trial: Trial, until: float) -> bool:
        """Whether that share of the budget is spent, which the trial then gives as its reason."""
        late = self.spent > self.settings.budget * until
        if late:
            trial.reason = f"the budget of {self.settings.budget:g} s was spent on what promised more"
        return late

    def measure(self, trial: Trial, candidate: Incumbent, against: Incumbent, *, until: float, among: int = 1) -> bool:
        """Quality first, then time; says in the trial why it is kept or not."""
        if self.is_late(trial, until):
            return False
        model = candidate.model
        try:
            torch.set_num_threads(candidate.threads)
            trial.quality = self.judge.judge(model, what=trial.name)
            if not trial.quality.within_limit:
                trial.status, trial.reason = "rejected", self.judge.explain(trial.quality)
                return False
            trial.comparison = self.compare(
                self.workload.arm(against.model, against.threads, "incumbent"),
                self.workload.arm(model, candidate.threads, trial.name),
                until=until,
                among=among,
            )
        except TautError as error:
            trial.status, trial.reason = "rejected", f"failed: {error.message}"
            return False
        pays, trial.reason = self._pays(trial.comparison, against.graph, candidate.graph)
        trial.status = "kept" if pays else "rejected"
        return pays

    def _pays(self, result: PairedResult, before: Graph, after: Graph) -> tuple[bool, str]:
        """Whether it is kept: what is faster, or for size what stores less, or as much and is faster."""
        figure = f"{result.ratio:.3f}x [{result.low:.3f}, {result.high:.3f}]"
        if not result.has_interval:
            figure = f"{result.ratio:.3f}x without an interval, the budget was too small"
        faster = result.verdict == "faster"
        if self.settings.goal == "size":
            old, new = stored_bytes(before), stored_bytes(after)
            return new < old or (new == old and faster), f"{size_change(old, new)}; {result.verdict}, {figure}"
        pairs = "1 pair" if result.pairs == 1 else f"{result.pairs} pairs"
        return faster, f"{result.verdict}, {figure} from {pairs}"

    def _stack(self, alone: list[Trial]) -> None:
        """Add techniques to the incumbent, best first; a second round lets the early ones stand on the late ones.

        What was slower alone is tried as well, last: a layout or a format may pay only on top of a fused operator.
        """
        worth = [trial for trial in alone if trial.comparison is not None]
        worth.sort(key=self._rank)
        if not worth or worth[0].status != "kept":
            return
        graph, steps, _ = self.planner.apply((), worth[0].name, worth[0].options)
        self.incumbent = dataclasses.replace(self.incumbent, graph=graph, steps=steps)
        tried: list[tuple[tuple[str, dict[str, Any]], tuple[str, ...]]] = []
        for trial in worth * 2:
            attempt = trial.step, self.incumbent.names
            if trial.name not in self.incumbent.names and attempt not in tried:
                tried.append(attempt)
                clash = self._clash(trial.name)
                if clash and later_trials(self, trial):
                    continue  # said already
                self._try_on_top(trial, clash, among=len(worth))

    def _rank(self, trial: Trial) -> tuple[bool, float, float]:
        """Sorts what paid alone before the rest, smallest first where the goal is size, then fastest first."""
        size = float(trial.stored_bytes or 0) if self.settings.goal == "size" else 0.0
        return trial.status != "kept", size, -(trial.comparison.ratio if trial.comparison else 0.0)

    def _clash(self, added: str) -> list[str]:
        kept = self.incumbent.names
        return [name for name in kept if name in PASSES[added].conflicts or added in PASSES[name].conflicts]

    def _try_on_top(self, alone: Trial, clash: list[str], among: int) -> None:
        kept = self.incumbent.names
        trial = Trial(alone.name, alone.title, on_top_of=(GRAPH, *kept), options=alone.options)
        self.trials.append(trial)
        if clash:
            gained = "stores less" if self.settings.goal == "size" else "gained more"
            trial.status, trial.reason = "rejected", f"conflicts with {', '.join(clash)}, which {gained}"
            return
        try:
            graph, steps, change = self.planner.apply(self.incumbent.steps, alone.name, alone.options)
        except TautError as error:
            trial.status, trial.reason = "not_applicable", error.message
            return
        trial.summary, trial.options = change.summary, plain_options(change)
        trial.stored_bytes = stored_bytes(graph)
        trial.predicted = self.planner.gain(self.incumbent.graph, graph, self.incumbent.threads)
        self.say(f"trying {alone.name} on top of {', '.join(kept)}")
        candidate = dataclasses.replace(self.incumbent, graph=graph, steps=steps)
        if self.measure(trial, candidate, self.incumbent, until=_STACK, among=among):
            self.incumbent = candidate

    def _choose_threads(self) -> None:
        if runs_on_one_thread(self.incumbent):
            return
        for count in self.settings.threads:
            now = self.incumbent.threads
            if count == now:
                continue
            trial = Trial(THREADS, f"Run on {count} instead of {now} threads", on_top_of=(GRAPH, *self.incumbent.names))
            self.trials.append(trial)
            if self.is_late(trial, _THREADS):
                continue
            self.say(f"trying {count} thread(s)")
            model = self.incumbent.model
            trial.threads = (now, count)
            trial.comparison = self.compare(
                self.workload.arm(model, now, f"{now} threads"),
                self.workload.arm(model, count, f"{count} threads"),
                until=_THREADS,
            )
            pays, trial.reason = self._pays(trial.comparison, self.incumbent.graph, self.incumbent.graph)
            trial.status = "kept" if pays else "rejected"
            if pays:
                self.incumbent = dataclasses.replace(self.incumbent, threads=count)

    # Proof

    def _prove(self) -> None:
        """Measure the stack afresh against the best eager setting, and score it once more."""
        self.say("proving the result against the best eager setting")
        model = self.incumbent.model
        torch.set_num_threads(self.incumbent.threads)
        self.final_quality = self.judge.judge(model, what="the result")
        if not self.final_quality.within_limit:
            settle(self)
            return
        self.headline = self.compare(
            self.workload.arm(self.eager, self.eager_threads, "best eager"),
            self.workload.arm(model, self.incumbent.threads, "result"),
            until=max(1.0, self.spent / self.settings.budget + _PROOF),
        )
        pays, _ = self._pays(self.headline, self.base, self.incumbent.graph)
        self.proven = pays and self.final_quality.within_limit
        settle(self)
