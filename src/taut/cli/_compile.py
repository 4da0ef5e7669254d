"""`taut compile`: a model as one program that runs every shape."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.cli._json import check_json, write_json
from taut.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from taut.compile import CompiledModel
    from taut.optimize import LoadedModel

_DIMENSION = re.compile(r"(\w+):(\d+)(?::(\d+)(?:-(\d+))?)?")
_MOST_REASONS = 10
_BATCH = 32


def compile_(
    model: Annotated[str, typer.Argument(help="path.py:factory, package.module:factory or a .pt2 file")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder to write; by default NAME.taut in the current folder."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Take the first batch of this data as example inputs; as for optimize.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input, e.g. 1x3x224x224 or 8x128:int64; repeat it for each input."),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT:DIM[:MIN-MAX]",
            help="A dimension that may vary, e.g. tokens:1:1-512; repeat it, or say none. By default the factory's "
            "dynamic shapes, else the batch.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a compiled program that is there already.")] = False,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write what was done as JSON; - is standard output.")
    ] = None,
) -> None:
    """Compile a model to one program that runs every shape, and say what of it runs on ATen and why."""
    if json_path is not None:
        check_json(json_path)
    if data is not None and shape:
        raise ArgumentError("--shape", shape, expected="no --data beside it")
    from taut.cli._inspect import example_inputs
    from taut.cli._optimize import short_name
    from taut.cli._terminal import progress_bar, results
    from taut.compile import check_program_destination, compile_model, save
    from taut.optimize import free_destination, load_data, load_model

    destination = out if out is not None else free_destination(short_name(model))
    check_program_destination(destination, force=force)
    loaded = load_model(model)
    given = load_data(data, batch_size=_BATCH).batches[0] if data is not None else loaded.example_inputs
    inputs = example_inputs(given, shape or [])
    shapes = dynamic_shapes(loaded, inputs, dynamic or [])
    with progress_bar() as progress:
        progress("capturing the model", 0.0)
        compiled = compile_model(
            loaded.module,
            inputs,
            dynamic_shapes=shapes,
            progress=lambda _stage, done, total: progress(f"generating {total} kernels", done / total),
        )
        progress("writing the program", 1.0)
        save(compiled, destination, example_inputs=inputs, force=force)
    document = summary(compiled, loaded.name, destination)
    show(document, results(stdout=json_path != "-"))
    if json_path is not None:
        write_json(document, json_path)


def dynamic_shapes(loaded: LoadedModel, inputs: tuple[Any, ...], wanted: list[str]) -> Any:
    """Which dimensions may vary, as torch.export takes it.

    Raises:
        ArgumentError: a wish cannot be read, or names an input or dimension that there is not.
    """
    import torch

    from taut.optimize import dynamic_batch

    if not isinstance(loaded.module, torch.nn.Module):
        if wanted:
            raise ArgumentError(
                "--dynamic", wanted, expected="a module: a .pt2 file says itself which of its dimensions vary"
            )
        return None
    if not wanted:
        return loaded.dynamic_shapes if loaded.dynamic_shapes is not None else dynamic_batch(inputs)
    if wanted == ["none"]:
        return None
    names = list(inspect.signature(loaded.module.forward).parameters)[: len(inputs)]
    chosen: dict[int, dict[int, Any]] = {}
    for wish in wanted:
        match = _DIMENSION.fullmatch(wish)
        if match is None:
            raise ArgumentError("--dynamic", wish, expected="INPUT:DIM or INPUT:DIM:MIN-MAX, e.g. tokens:1:1-512")
        name, axis, lower, upper = match.groups()
        position = names.index(name) if name in names else int(name) if name.isdigit() else len(inputs)
        if position >= len(inputs):
            known = ", ".join(names) or f"0 to {len(inputs) - 1}"
            raise ArgumentError("--dynamic", wish, expected=f"one of the inputs {known}")
        value = inputs[position]
        if not isinstance(value, torch.Tensor) or int(axis) >= value.dim():
            what = f"the {value.dim()} dimensions of {name}" if isinstance(value, torch.Tensor) else "a tensor"
            raise ArgumentError("--dynamic", wish, expected=f"one of {what}, counted from 0")
        if upper is not None and int(upper) < int(lower):
            raise ArgumentError("--dynamic", wish, expected="a MIN that is not above MAX")
        limits = {"min": lower and int(lower), "max": upper and int(upper)}
        hint = torch.export.Dim.AUTO
        chosen.setdefault(position, {})[int(axis)] = hint if lower is None else hint(**limits)
    return tuple(chosen.get(position) for position in range(len(inputs)))


def summary(compiled: CompiledModel, name: str, path: Path) -> dict[str, Any]:
    """What was compiled, as JSON takes it."""
    report, program = compiled.report, compiled.program
    return {
        "model": name,
        "program": str(path),
        "bytes": {file.name: file.stat().st_size for file in sorted(path.iterdir())},
        "inputs": {parameter.name: [str(size) for size in parameter.shape] for parameter in program.parameters},
        "kernels": report.kernels,
        "fallbacks": dict(report.fallbacks),
        "failed": dict(report.failed),
        "seconds": dict(report.seconds),
    }


def show(document: dict[str, Any], console: Console) -> None:
    """Print the summary."""
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in document["seconds"].items())
    inputs = ", ".join(f"{name} ({', '.join(sizes)})" for name, sizes in document["inputs"].items())
    lines = [
        f"{document['model']}: {document['kernels']} kernels generated; {stages}",
        f"inputs: {inputs}",
        *fallback_lines(document["fallbacks"], document["failed"]),
        f"program: {document['program']} ({sum(document['bytes'].values()):,} bytes, no machine code)",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def fallback_lines(fallbacks: dict[str, int], failed: dict[str, str]) -> list[str]:
    """What runs on ATen, and why."""
    if not fallbacks:
        return ["nothing runs on ATen"]
    lines = [f"on ATen: {', '.join(f'{op} ({count})' for op, count in sorted(fallbacks.items()))}"]
    reasons = [f"  no kernel for {label}: {reason}" for label, reason in failed.items()]
    if len(reasons) > _MOST_REASONS:
        reasons = [*reasons[:_MOST_REASONS], f"  and {len(reasons) - _MOST_REASONS} more"]
    others = "" if not failed else ", apart from these"
    return [*lines, *reasons, f"  there is no kernel for these operators or arguments{others}"]
