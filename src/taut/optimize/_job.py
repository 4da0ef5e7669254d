"""The main job: measure, model, decide, apply, prove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from taut.errors import ArgumentError
from taut.optimize._bundle import check_destination
from taut.optimize._planner import PEERS, Planner, Trial, technique_names
from taut.optimize._prepare import load, prepare, restored
from taut.optimize._quality import Limit
from taut.optimize._recipe import Recipe, read_recipe
from taut.optimize._settings import Goal, Progress, Settings
from taut.optimize._work import Result, run


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
    wanted = None if recipe is None else _replayable(Path(recipe))
    tell = progress or (lambda _doing, _share: None)
    loaded = load(model, example_inputs, dynamic_shapes)
    with restored(loaded.module):
        prepared = prepare(loaded, settings, data=data, metric=metric, progress=tell)
        return run(
            prepared,
            lambda search: search.run() if wanted is None else search.replay(tuple(wanted.passes), wanted.threads),
            destination,
            force=force,
            progress=tell,
        )


def _replayable(path: Path) -> Recipe:
    recipe = read_recipe(path)
    if recipe.prepared:
        raise ArgumentError(
            "--recipe",
            str(path),
            expected="a recipe whose passes alone make the model; "
            f"weights of this one were {' and '.join(recipe.prepared)}",
            fix="use the bundle itself, which holds the weights (taut run, taut export), "
            "or make it again with taut quantize --calibrate",
        )
    return recipe


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
    with restored(loaded.module):
        prepared = prepare(loaded, settings, data=data, metric=metric, progress=tell)
    tell("predicting", 0.5)
    planner = Planner(prepared.graph, prepared.sizes, settings)
    techniques = (trial for trial, _ in planner.plan(settings.threads[-1]))
    return (*techniques, planner.plan_compiling(), planner.plan_threads(), *planner.plan_peers())
