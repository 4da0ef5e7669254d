"""The main job: measure, model, decide, apply, prove."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from taut.errors import ArgumentError, DataError, Interrupted, StorageError
from taut.graph import Graph, bind_sizes
from taut.optimize._bundle import check_destination, write_bundle
from taut.optimize._data import Dataset, check_inputs, load_data, match_labels, rows, synthesise, thin_out
from taut.optimize._load import LoadedModel, as_loaded_model, capture_model, load_model
from taut.optimize._metrics import Metric, choose_metric
from taut.optimize._outcome import make_report
from taut.optimize._planner import PEERS, Planner, Trial, technique_names
from taut.optimize._quality import Judge, Limit, collect
from taut.optimize._recipe import Recipe, read_recipe
from taut.optimize._report import Report
from taut.optimize._search import Search
from taut.optimize._session import Session
from taut.optimize._settings import Goal, Progress, Settings
from taut.optimize._workload import choose_workload, seconds_per_batch

_DEFAULT_BATCH = 32
_SCORING_SHARE = 0.06  # of the budget, for one candidate
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


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that the search needs, checked."""

    loaded: LoadedModel
    settings: Settings
    eager: Callable[..., Any]
    graph: Graph
    sizes: Mapping[str, int]
    dataset: Dataset
    metric: Metric
    warnings: tuple[str, ...]
    command: str | None


def optimize(
    model: torch.nn.Module | torch.export.ExportedProgram | str,
    example_inputs: tuple[Any, ...] | torch.Tensor | None = None,
    *,
    data: str | Mapping[str, Any] | None = None,
    metric: str | Callable[..., float] | None = None,
    dynamic_shapes: Any = None,
    goal: Goal = "latency",
    max_drop: str | float = "1%",
    budget: float = 120.0,
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    peers: tuple[str, ...] = (),
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Find which techniques make a model cheaper on this host, and prove it.

    Args:
        model: a module, an exported program, or what the command line takes: `path.py:factory`,
            `package.module:factory` or a `.pt2` file.
        example_inputs: one call's positional inputs; by default the factory's, or the first batch of the data.
        data: the user's samples; see the guide on data. Without it random inputs like the example are used, and
            quality is the cosine to the unmodified model's outputs.
        metric: a built-in name, `path.py:function`, or a callable (outputs, labels) -> float, higher being better.
        dynamic_shapes: as `torch.export.export` takes it; by default the first dimension of every input that has as
            many rows as the first one, two at least, is dynamic where the model allows it.
        goal: "latency", "size" or "energy" (CPU time over all threads, a proxy).
        max_drop: quality that may be lost, "1%" of the baseline's score or an amount in the metric's unit.
        budget: seconds for measuring.
        only: names of the techniques to consider; empty means all.
        skip: names of techniques to leave out.
        peers: other tools to measure beside: "torch_compile".
        recipe: replay this recipe file instead of searching.
        out: write the bundle there.
        force: replace a bundle that is there already.
        progress: called with what is being done and the share of the budget spent.

    Returns:
        The result; also when nothing paid, which its report says.

    Raises:
        TautError: `ModelError`, `DataError`, `ArgumentError`, `StorageError`; `Interrupted` after Ctrl-C, whose
            bundle, marked as partial, is written if `out` is given. Its `result`, like that of a `StorageError` at the
            end, holds what was finished.
    """
    destination = None if out is None else Path(out)
    if destination is not None:
        check_destination(destination, force=force)
    settings = Settings(
        goal, Limit.parse(max_drop), float(budget), only=tuple(only), skip=tuple(skip), peers=tuple(peers)
    )
    settings.check_names(technique_names(), PEERS)
    wanted = None if recipe is None else read_recipe(Path(recipe))
    tell = progress or (lambda _doing, _share: None)
    loaded = load(model, example_inputs, dynamic_shapes)
    with _restored(loaded.module):
        prepared = prepare(loaded, settings, data=data, metric=metric, progress=tell)
        return _run(prepared, wanted, destination, force, tell)


@contextlib.contextmanager
def _restored(module: torch.nn.Module | torch.export.ExportedProgram) -> Iterator[None]:
    """Leave the thread count and the training flags as they were."""
    threads = torch.get_num_threads()
    flags = {part: part.training for part in module.modules()} if isinstance(module, torch.nn.Module) else {}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for part, training in flags.items():
            part.training = training


def load(model: Any, example_inputs: Any, dynamic_shapes: Any) -> LoadedModel:
    """The model with its example inputs, from either a module or what the command line takes."""
    if isinstance(model, str):
        loaded = load_model(model)
    else:
        if not isinstance(model, (torch.nn.Module, torch.export.ExportedProgram)):
            raise ArgumentError("model", model, expected="an nn.Module, an ExportedProgram, or path.py:factory")
        loaded = as_loaded_model(
            (model,), name=type(model).__name__.lower(), source=f"{type(model).__name__} given in Python"
        )
    if example_inputs is not None:
        inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
        loaded = dataclasses.replace(loaded, example_inputs=inputs)
    return loaded if dynamic_shapes is None else dataclasses.replace(loaded, dynamic_shapes=dynamic_shapes)


def prepare(
    loaded: LoadedModel,
    settings: Settings,
    *,
    data: str | Mapping[str, Any] | None,
    metric: str | Callable[..., float] | None,
    progress: Progress,
) -> Prepared:
    """Read the data, capture the graph, and check that they fit together."""
    warnings: list[str] = []
    if loaded.example_inputs is None and data is None:
        raise ArgumentError(
            "example_inputs",
            None,
            expected="example inputs or data",
            fix="let the factory return (module, example_inputs)",
        )
    progress("reading the data", 0.0)
    example = loaded.example_inputs
    batch_size = rows(example) if example else _DEFAULT_BATCH
    if data is None:
        assert example is not None
        dataset = synthesise(example)
        warnings.append(
            "No data was given: times and quality are those of random inputs. Give --data for figures that count."
        )
    else:
        dataset = match_labels(load_data(data, batch_size=batch_size), batch_size)
    if settings.goal == "energy":
        warnings.append("Energy is CPU time over all threads, a proxy: no energy counter is read.")
    chosen = choose_metric(metric, dataset.labels)
    if example is None:
        example = dataset.batches[0]
    progress("capturing the graph", 0.0)
    shapes = loaded.dynamic_shapes
    if shapes is None and isinstance(loaded.module, torch.nn.Module):
        shapes = _dynamic_batch(example)
    if example and isinstance(example[0], torch.Tensor) and not example[0].numel():
        raise DataError(
            f"{loaded.source}: the example input has shape {tuple(example[0].shape)}", expected="at least one sample"
        )
    graph = capture_model(loaded, example, shapes)
    check_inputs(dataset, graph)
    loaded = dataclasses.replace(loaded, example_inputs=example)
    return Prepared(
        loaded,
        settings,
        _as_eager(loaded.module),
        graph,
        bind_sizes(graph, *example),
        dataset,
        chosen,
        tuple(warnings),
        _replay_command(loaded.source, data, metric) if isinstance(loaded.module, torch.nn.Module) else None,
    )


def _replay_command(source: str, data: object, metric: object) -> str | None:
    """The command that replays the recipe, where everything was given by name."""
    if ":" not in source or not isinstance(data, (str, type(None))) or not isinstance(metric, (str, type(None))):
        return None
    options = [f"{option} {shlex.quote(value)}" for option, value in (("--data", data), ("--metric", metric)) if value]
    return " ".join(["taut optimize", shlex.quote(source), *options, "--recipe recipe.yaml"])


def _dynamic_batch(example: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """First dimensions that equal the batch size are dynamic where the model allows it."""
    batch = rows(example) if example and isinstance(example[0], torch.Tensor) else 0
    if batch < 2:
        return None
    return tuple(
        {0: torch.export.Dim.AUTO}
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == batch
        else None
        for value in example
    )


def _as_eager(module: torch.nn.Module | torch.export.ExportedProgram) -> Callable[..., Any]:
    """The unmodified model as its user would run it: in evaluation mode, on its own."""
    if isinstance(module, torch.export.ExportedProgram):
        return module.module(check_guards=False)
    return module.eval()


def _run(
    prepared: Prepared, wanted: Recipe | None, destination: Path | None, force: bool, progress: Progress
) -> Result:
    search: Search | None = None
    try:
        progress("running the unmodified model", 0.0)
        seconds = seconds_per_batch(prepared.dataset, prepared.eager)
        prepared = _within_budget(prepared, seconds)
        baseline = collect(prepared.eager, prepared.dataset, what="the unmodified model")
        judge = Judge(prepared.dataset, prepared.metric, prepared.settings.limit, baseline)
        workload = choose_workload(prepared.dataset, seconds)
        search = Search(prepared.settings, prepared.eager, prepared.graph, prepared.sizes, judge, workload, progress)
        if wanted is None:
            search.run()
        else:
            search.replay(tuple(wanted.passes), wanted.threads)
        search.doing = "timing each operation"
        result = _outcome(prepared, search, partial=None)
    except KeyboardInterrupt as interrupt:
        if search is None or not search.baselines:
            raise Interrupted("stopped before anything was measured") from interrupt
        search.stop()
        result = _outcome(prepared, search, partial=f"stopped by the user while {search.doing}")
        result = _save(result, destination, force)
        where = f"; what was finished is in {result.bundle}" if result.bundle else ""
        error = Interrupted(f"stopped while {search.doing}{where}")
        error.result = result
        raise error from interrupt
    return _save(result, destination, force)


def _within_budget(prepared: Prepared, seconds: float) -> Prepared:
    """Score candidates on fewer samples where one pass over the data would cost too much of the budget."""
    share = prepared.settings.budget * _SCORING_SHARE
    wanted = max(_FEWEST_SCORED, int(share / seconds))
    fewer = thin_out(prepared.dataset, wanted)
    if fewer is prepared.dataset:
        return prepared
    warning = (
        f"Quality and time are those of {fewer.samples} of {prepared.dataset.samples} samples, spread evenly over the "
        "data, since scoring every candidate on all of them exceeds the budget; raise --budget to use more."
    )
    return dataclasses.replace(prepared, dataset=fewer, warnings=(*prepared.warnings, warning))


def _outcome(prepared: Prepared, search: Search, *, partial: str | None) -> Result:
    incumbent = search.incumbent
    recipe = Recipe.make(list(incumbent.steps), incumbent.threads)
    report = make_report(prepared, search, partial=partial)
    return Result(Session(incumbent.graph, recipe, report), report)


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


def dry_run(
    model: torch.nn.Module | torch.export.ExportedProgram | str,
    example_inputs: tuple[Any, ...] | torch.Tensor | None = None,
    *,
    data: str | Mapping[str, Any] | None = None,
    metric: str | Callable[..., float] | None = None,
    dynamic_shapes: Any = None,
    goal: Goal = "latency",
    max_drop: str | float = "1%",
    budget: float = 120.0,
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    peers: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> tuple[Trial, ...]:
    """What `optimize` would try, with modelled gains; measures nothing but the host's peaks, once.

    Everything is checked as `optimize` would check it, so that what passes here does not fail there.

    Args:
        model: as for `optimize`, like all that follow.
        example_inputs: one call's positional inputs.
        data: the user's samples.
        metric: how outputs would be scored.
        dynamic_shapes: as `torch.export.export` takes it.
        goal: what would be made smaller.
        max_drop: quality that might be lost.
        budget: seconds that measuring might take.
        only: names of the techniques to consider.
        skip: names of techniques to leave out.
        peers: other tools that would be measured beside.
        progress: called with what is being done.

    Returns:
        One trial for each technique, best modelled gain first, then thread counts and peers, whose gain is not
        modelled; those that would not be tried say why.

    Raises:
        TautError: as `optimize` raises it, for what is wrong with the model, the data or an argument.
    """
    settings = Settings(
        goal, Limit.parse(max_drop), float(budget), only=tuple(only), skip=tuple(skip), peers=tuple(peers)
    )
    settings.check_names(technique_names(), PEERS)
    tell = progress or (lambda _doing, _share: None)
    loaded = load(model, example_inputs, dynamic_shapes)
    with _restored(loaded.module):
        prepared = prepare(loaded, settings, data=data, metric=metric, progress=tell)
    tell("predicting", 0.5)
    planner = Planner(prepared.graph, prepared.sizes, settings)
    techniques = (trial for trial, _ in planner.plan(settings.threads[-1]))
    return (*techniques, planner.plan_threads(), *planner.plan_peers())
