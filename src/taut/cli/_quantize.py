"""`taut quantize`: quantisation as the user names it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from taut.cli._json import check_json
from taut.cli._optimize import names_of, short_name, show
from taut.errors import ArgumentError, TautError


def quantize(
    model: Annotated[
        str | None,
        typer.Argument(
            help="path.py:factory, package.module:factory or a .pt2 file; without it an embedded example runs."
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        list[str] | None,
        typer.Option(help="A scheme, see taut formats; repeat it for those that --max-bits or --max-bytes mixes."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="path.py:function, package.module:function, .npz or .safetensors.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="A built-in metric or path.py:function.")] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="Inputs to prepare the weights with, in the forms of --data, but other samples."),
    ] = None,
    fine_tune: Annotated[int, typer.Option(help="Steps of training on the calibration data.")] = 0,
    max_drop: Annotated[str, typer.Option(help='Quality that may be lost: "1%" of the baseline, or an amount.')] = "1%",
    max_bits: Annotated[
        float | None, typer.Option(help="Mix schemes by sensitivity: stored bits a weight, on average.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="Mix schemes by sensitivity: bytes of the whole artefact, e.g. 12.5MB.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="PATH=SCHEME for the layers at or below a module path; repeat it.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave the layers at or below these module paths.")] = None,
    budget: Annotated[float, typer.Option(help="Seconds for measuring.")] = 60.0,
    out: Annotated[
        Path | None, typer.Option(help="The bundle to write; by default NAME.taut in the current folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON as well; - for standard output.")
    ] = None,
) -> None:
    """Quantise a model in a scheme of your choice; score it, measure it, and write an artefact and a report."""
    if json is not None:
        check_json(str(json))
    layers = _layers(layer or [])
    from taut.cli._terminal import progress_bar
    from taut.optimize import EMBEDDED_EXAMPLE, Result, check_destination, free_destination
    from taut.optimize import quantize as job

    if model is None:
        model = EMBEDDED_EXAMPLE
        data = data or EMBEDDED_EXAMPLE.replace(":model", ":data")
        metric = metric or "accuracy"
    destination = out if out is not None else free_destination(short_name(model))
    check_destination(destination, force=force)
    wanted: dict[str, Any] = {
        "format": names_of(format),
        "layers": layers,
        "skip": names_of(skip),
        "max_bits": max_bits,
        "max_bytes": max_bytes,
        "calibration": calibrate,
        "fine_tune": fine_tune,
        "data": data,
        "metric": metric,
        "max_drop": max_drop,
        "budget": budget,
    }
    try:
        with progress_bar() as progress:
            result = job(model, out=destination, force=force, progress=progress, **wanted)
    except TautError as error:
        if isinstance(error.result, Result):
            show(error.result, json)
        raise
    show(result, json)


def _layers(given: list[str]) -> dict[str, str]:
    layers: dict[str, str] = {}
    for item in given:
        path, _, scheme = item.rpartition("=")
        if not path or not scheme or path in layers:
            raise ArgumentError("--layer", item, expected="PATH=SCHEME, each path once")
        layers[path] = scheme
    return layers
