"""`taut optimize`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.cli._json import check_json, write_json
from taut.errors import ArgumentError, TautError

if TYPE_CHECKING:
    from taut.optimize import Result


def optimize(
    model: Annotated[
        str | None,
        typer.Argument(
            help="path.py:factory, package.module:factory or a .pt2 file; without it an embedded example runs."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="path.py:function, package.module:function, .npz or .safetensors.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="A built-in metric or path.py:function.")] = None,
    goal: Annotated[str, typer.Option(help="latency, size or energy.")] = "latency",
    max_drop: Annotated[str, typer.Option(help='Quality that may be lost: "1%" of the baseline, or an amount.')] = "1%",
    target: Annotated[str, typer.Option(help="The device to optimise for; cpu.")] = "cpu",
    budget: Annotated[float, typer.Option(help="Seconds for measuring.")] = 120.0,
    only: Annotated[
        list[str] | None, typer.Option(help="Consider these techniques only (repeat, or separate by commas).")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave these techniques out.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Measure another tool beside: torch_compile.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Replay a recipe.yaml or a bundle's recipe instead of searching.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The bundle to write; by default NAME.taut in the current folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried and what the model predicts; write nothing.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON as well; - for standard output.")
    ] = None,
) -> None:
    """Find which techniques make a model cheaper on this host, prove it, and write an artefact and a report."""
    if target != "cpu":
        raise ArgumentError("--target", target, expected="cpu")
    if dry_run and recipe is not None:
        raise ArgumentError(
            "--recipe", str(recipe), expected="no --dry-run", fix="read the recipe: it is what would be applied"
        )
    if json is not None:
        check_json(str(json))
    from taut.cli._terminal import progress_bar, results, show_plan
    from taut.optimize import EMBEDDED_EXAMPLE, Result, check_destination, free_destination
    from taut.optimize import dry_run as plan_job
    from taut.optimize import optimize as job

    if model is None:
        model = EMBEDDED_EXAMPLE
        data = data or EMBEDDED_EXAMPLE.replace(":model", ":data")
        metric = metric or "accuracy"
    wanted: dict[str, Any] = {
        "data": data,
        "metric": metric,
        "goal": goal,
        "max_drop": max_drop,
        "budget": budget,
        "only": names_of(only),
        "skip": names_of(skip),
        "peers": names_of(peer),
    }
    if dry_run:
        with progress_bar() as progress:
            plan = plan_job(model, progress=progress, **wanted)
        show_plan(plan, results(stdout=str(json) != "-"))
        if json is not None:
            rows = [{"name": t.name, "status": t.status, "reason": t.reason, "predicted": t.predicted} for t in plan]
            write_json(rows, str(json))
        return
    destination = out if out is not None else free_destination(short_name(model))
    check_destination(destination, force=force)
    try:
        with progress_bar() as progress:
            result = job(model, recipe=recipe, out=destination, force=force, progress=progress, **wanted)
    except TautError as error:
        if isinstance(error.result, Result):
            show(error.result, json)
        raise
    show(result, json)


def show(result: Result, json: Path | None) -> None:
    """Print a job's result, and write its report as JSON if that is wanted."""
    from taut.cli._terminal import results, show_result

    show_result(result.report, result.bundle, results(stdout=str(json) != "-"))
    if json is not None:
        write_json(result.report.model_dump(mode="json"), str(json))


def names_of(values: list[str] | None) -> tuple[str, ...]:
    """The names of an option that may be repeated and may hold several between commas."""
    return tuple(name.strip() for value in values or [] for name in value.split(",") if name.strip())


def short_name(model: str) -> str:
    """What a bundle of this model is called unless the user says otherwise."""
    place = model.rpartition(":")[0] or model
    return Path(place).stem if place.endswith((".py", ".pt2")) else place.rsplit(".", 1)[-1]
