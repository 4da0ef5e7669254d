"""What could be tried on a graph, and what the cost model says of it."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from taut.compile import CompiledModel
from taut.cost import Peaks, Roofline, Store, calibrate
from taut.errors import EmptyChangeError, StorageError, TautError
from taut.graph import Graph, Interpreter
from taut.optimize import _compiled
from taut.optimize._compiled import COMPILE, COMPILE_TITLE
from taut.optimize._quality import Quality
from taut.optimize._recipe import Preparation
from taut.optimize._settings import Goal, Settings
from taut.stats import PairedResult
from taut.transform import PASSES, Change, missing_needs

Steps = tuple[tuple[str, dict[str, Any]], ...]
GRAPH = "graph"
THREADS = "threads"
PEERS = ("torch_compile",)
_NO_OPTIONS: Mapping[str, Any] = {}


@dataclasses.dataclass
class Trial:
    """One technique considered: what was found and what was decided."""

    name: str
    title: str
    on_top_of: tuple[str, ...] = ()
    status: str = "not_tried"
    reason: str = ""
    predicted: float | None = None
    comparison: PairedResult | None = None
    quality: Quality | None = None
    summary: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    threads: tuple[int, int] | None = None
    stored_bytes: int | None = None

    @property
    def step(self) -> tuple[str, dict[str, Any]]:
        """How it stands in a recipe."""
        return self.name, dict(self.options)


@dataclasses.dataclass(frozen=True)
class Incumbent:
    """The best so far.

    Attributes:
        graph: what the passes made.
        steps: the passes; with a program the last is `COMPILE`, with the schedule as its option if it has one.
        threads: to run on.
        prepared: what was done to the weights between the passes.
        program: what runs in place of an interpreter of the graph.
    """

    graph: Graph
    steps: Steps
    threads: int
    prepared: tuple[Preparation, ...] = ()
    program: CompiledModel | None = None

    @property
    def model(self) -> Callable[..., Any]:
        """What runs."""
        return Interpreter(self.graph) if self.program is None else self.program

    @property
    def names(self) -> tuple[str, ...]:
        """The techniques applied."""
        return tuple(name for name, _ in self.steps)


def technique_names() -> tuple[str, ...]:
    """Every technique that `--only` and `--skip` know."""
    return (*PASSES, COMPILE, THREADS)


def plain_options(change: Change) -> dict[str, Any]:
    """The options that a pass used, defaults among them, so that a recipe still means the same when these move."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in change.options.items()}


def candidate_options(goal: Goal) -> Mapping[str, tuple[Mapping[str, Any] | None, ...]]:
    """With which options a search tries a pass, where not with the defaults alone; None leaves it to `--only`."""
    return _SIZE_OPTIONS if goal == "size" else _SPEED_OPTIONS


_SIZE_OPTIONS: Mapping[str, tuple[Mapping[str, Any] | None, ...]] = {
    "quantise": ({"scheme": "vsq-w3a8-v16"}, {"scheme": "vsq-w4a8-v16"}, {"scheme": "poc-w8a8"}),
}
_SPEED_OPTIONS: Mapping[str, tuple[Mapping[str, Any] | None, ...]] = {
    "quantised_embedding": (None,),
    "quantise": (None,),
}


def stored_bytes(graph: Graph) -> int:
    """Bytes of the constants, each content counted once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in graph.constants.values())


def size_change(before: int, after: int) -> str:
    """What became of the stored bytes."""
    return f"stores {after:,} bytes" + (f" instead of {before:,}" if after != before else ", as many as before")


class Planner:
    """Applies techniques to a graph and predicts their gain.

    Args:
        base: the captured graph.
        sizes: the value of each symbol at the example's sizes.
        settings: which techniques the user wants.
    """

    def __init__(self, base: Graph, sizes: Mapping[str, int], settings: Settings) -> None:
        self._base = base
        self._sizes = sizes
        self._settings = settings
        self._peaks: dict[int, Peaks] = {}

    def calibrate(self, threads: int) -> None:
        """Measure this host's peaks unless they are known; without a usable cache they serve this job alone."""
        if threads in self._peaks:
            return
        try:
            self._peaks[threads] = calibrate(threads=threads)
        except StorageError:
            with tempfile.TemporaryDirectory() as folder:
                self._peaks[threads] = calibrate(threads=threads, store=Store(Path(folder) / "peaks"))

    def gain(self, before: Graph, after: Graph, threads: int) -> float:
        """Modelled speed-up of one graph over another at the example's sizes."""
        self.calibrate(threads)
        model = Roofline(self._peaks[threads])
        seconds = [model.predict(graph, self._sizes, threads=threads).total for graph in (before, after)]
        return seconds[0] / seconds[1]

    def apply(self, kept: Steps, added: str, options: Mapping[str, Any] = _NO_OPTIONS) -> tuple[Graph, Steps, Change]:
        """The base with the kept passes and one more in the catalogue's order, which suits every pass.

        Args:
            kept: passes with their options.
            added: one more pass.
            options: of the added pass.

        Returns:
            The graph, its recipe, and the record of the added pass. A kept pass to which the added one leaves nothing
            is no longer in the recipe.

        Raises:
            EmptyChangeError: the added pass changes nothing beside the kept ones.
        """
        graph, steps, made = self._base, [], None
        chosen = {**dict(kept), added: options}
        for name in PASSES:
            if name not in chosen:
                continue
            try:
                change = PASSES[name].apply(graph, **chosen[name])
            except EmptyChangeError:
                if name == added:
                    raise
                continue
            graph = change.graph
            steps.append((name, plain_options(change)))
            if name == added:
                made = change
        assert made is not None
        return graph, tuple(steps), made

    def plan(self, threads: int) -> list[tuple[Trial, Graph | None]]:
        """Every technique with its modelled gain, best first; those that cannot apply say why."""
        wanted = candidate_options(self._settings.goal)
        planned = [
            self._plan_one(name, options, threads) for name in PASSES for options in wanted.get(name, (_NO_OPTIONS,))
        ]
        return sorted(planned, key=self._promise)

    def _promise(self, planned: tuple[Trial, Graph | None]) -> tuple[bool, float]:
        """What comes first has the least: modelled time, or bytes, before them what saves some and loses nothing."""
        trial, graph = planned
        if self._settings.goal != "size":
            return False, -(trial.predicted or 0.0)
        if graph is None:
            return True, math.inf
        size = stored_bytes(graph)
        return PASSES[trial.name].changes_numerics or size >= stored_bytes(self._base), size

    def plan_compiling(self) -> Trial:
        """The program that would be measured, which cannot be predicted before there is one."""
        trial = Trial(COMPILE, COMPILE_TITLE, on_top_of=(GRAPH,))
        if not self._settings.wants(COMPILE):
            trial.reason = "excluded by --only or --skip"
        elif missing := _compiled.missing_for_compiling():
            trial.status, trial.reason = "not_applicable", missing
        return trial

    def plan_threads(self) -> Trial:
        """The thread counts that would be measured."""
        counts = self._settings.threads
        trial = Trial(THREADS, f"Run on {' or '.join(map(str, counts))} threads", on_top_of=(GRAPH,))
        if not self._settings.wants(THREADS):
            trial.reason = "excluded by --only or --skip"
        elif len(counts) == 1:
            trial.status, trial.reason = "not_applicable", "this process may use one core only"
        return trial

    def plan_peers(self) -> list[Trial]:
        """The peers that would be measured."""
        return [Trial(name, f"{name}, measured beside, never kept", status="peer") for name in self._settings.peers]

    def _plan_one(self, name: str, options: Mapping[str, Any] | None, threads: int) -> tuple[Trial, Graph | None]:
        trial = Trial(name, PASSES[name].title, on_top_of=(GRAPH,))
        if not self._settings.wants(name):
            trial.reason = "excluded by --only or --skip"
            return trial, None
        if options is None and name not in self._settings.only:
            trial.reason = f"its goal is size, and this job's is {self._settings.goal}; --only {name} tries it"
            return trial, None
        options = options or _NO_OPTIONS
        missing = missing_needs(PASSES[name])
        applicable = PASSES[name].applies(self._base, **options)
        if missing or not applicable:
            trial.status, trial.reason = "not_applicable", "; ".join(missing) or applicable.reason
            return trial, None
        try:
            graph, _, change = self.apply((), name, options)
        except TautError as error:
            trial.status, trial.reason = "rejected", f"could not be applied: {error.message}"
            return trial, None
        trial.summary, trial.options = change.summary, plain_options(change)
        trial.predicted = self.gain(self._base, graph, threads)
        trial.stored_bytes = stored_bytes(graph)
        return trial, graph
