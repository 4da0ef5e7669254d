"""`taut inspect`: what each operation of a model costs, or each kernel of a compiled program."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.cli._json import check_json, write_json
from taut.errors import ArgumentError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from taut.cost import Prediction
    from taut.graph import Graph

_MOST_ELEMENTS = 2**36
_SHAPE = re.compile(r"(\d+(?:x\d+)*|scalar)(?::([a-z]+[0-9]*))?")


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="path.py:factory, package.module:factory, a .pt2 file, or a folder written by taut compile"
        ),
    ],
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input, e.g. 1x3x224x224 or 8x128:int64; repeat it for each input."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads within one operator (default: torch's).")] = None,
    top: Annotated[int, typer.Option(min=1, help="Show that many operations, the slowest ones.")] = 20,
    bytecode: Annotated[bool, typer.Option("--bytecode", help="List the code of a compiled program as well.")] = False,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write every operation as JSON; - is standard output.")
    ] = None,
) -> None:
    """Show what each operation of a model or program costs: operations, bytes, measured time, time by the roofline."""
    if json_path is not None:
        check_json(json_path)
    if Path(model).is_dir():
        if threads not in (None, 1):
            raise ArgumentError("--threads", threads, expected="1: a compiled program runs on the calling thread")
        from taut.cli._inspect_program import inspect_compiled

        inspect_compiled(Path(model), shape or [], top, json_path, bytecode=bytecode)
        return
    if bytecode:
        raise ArgumentError("--bytecode", model, expected="a folder written by taut compile")
    import torch

    from taut.cli._terminal import progress_bar, results
    from taut.cost import Measured, Roofline, calibrate
    from taut.graph import bind_sizes, evaluate, graph_cost
    from taut.optimize import capture_model, load_model

    loaded = load_model(model)
    inputs = example_inputs(loaded.example_inputs, shape or [])
    count = torch.get_num_threads() if threads is None else threads
    with progress_bar() as progress:
        progress("capturing the model", 0.0)
        graph = capture_model(loaded, inputs, loaded.dynamic_shapes)
        sizes = bind_sizes(graph, *inputs)
        progress("calibrating the host (once)", 0.3)
        modelled = Roofline(calibrate(threads=count)).predict(graph, sizes, threads=count)
        progress("measuring each operation", 0.7)
        measured = Measured(inputs=inputs).predict(graph, sizes, threads=count)
    table = operations(graph, sizes, measured, modelled)
    document = {
        "model": loaded.name,
        "threads": count,
        "sizes": sizes,
        "operations": table,
        "totals": totals(table, evaluate(graph_cost(graph).parameters, sizes)),
        "notes": list(modelled.notes),
    }
    show(document, top, results(stdout=json_path != "-"))
    if json_path is not None:
        write_json(document, json_path)


def example_inputs(given: tuple[Any, ...] | None, shapes: list[str]) -> tuple[Any, ...]:
    """The inputs to run on: the factory's, or random ones of the shapes that the user typed.

    An input whose number format is not typed takes the example's, else float32. Integers stay below the largest
    value of the example, so that they remain valid indices.

    Raises:
        ArgumentError: there is neither an example nor a shape, or a shape cannot be read.
    """
    import torch

    if not shapes:
        if given is None:
            raise ArgumentError(
                "--shape",
                None,
                expected="a shape for each input, since the model came without example inputs",
                fix="add e.g. --shape 1x3x224x224, or return (module, example_inputs) from the factory",
            )
        return given
    if given is not None and len(given) != len(shapes):
        raise ArgumentError("--shape", shapes, expected=f"{len(given)} shapes, one for each input of the model")
    generator = torch.Generator().manual_seed(0)
    examples = (None,) * len(shapes) if given is None else given
    return tuple(_random(text, example, generator) for text, example in zip(shapes, examples, strict=True))


def _random(text: str, example: object, generator: torch.Generator) -> torch.Tensor:
    import torch

    tensor = example if isinstance(example, torch.Tensor) else None
    shape, named = parsed_shape(text)
    dtype = named or (tensor.dtype if tensor is not None else torch.float32)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)
    largest = int(tensor.max()) if tensor is not None and tensor.numel() else 1
    return torch.randint(0, max(largest, 1) + 1, shape, generator=generator).to(dtype)


def parsed_shape(text: str) -> tuple[tuple[int, ...], torch.dtype | None]:
    """The sizes of a typed shape, and its type where one was typed.

    Raises:
        ArgumentError: it cannot be read.
    """
    import torch

    match = _SHAPE.fullmatch(text)
    dtype = getattr(torch, match[2], None) if match and match[2] else None
    if match is None or (match[2] and not isinstance(dtype, torch.dtype)):
        raise ArgumentError("--shape", text, expected="sizes with x between them and a type, e.g. 8x128:int64")
    shape = () if match[1] == "scalar" else tuple(map(int, match[1].split("x")))
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ArgumentError("--shape", text, expected=f"at most {_MOST_ELEMENTS} elements")
    return shape, dtype


def operations(graph: Graph, sizes: dict[str, int], measured: Prediction, modelled: Prediction) -> list[dict[str, Any]]:
    """One row for each operation that runs, in the order of the graph."""
    from taut.graph import TensorType, evaluate, operation_cost

    rows: list[dict[str, Any]] = []
    for node, seconds, predicted, bound in zip(
        graph.nodes, measured.seconds, modelled.seconds, modelled.bounds, strict=True
    ):
        if not predicted:
            continue
        cost = operation_cost(graph, node)
        tensors = [value for value in node.outputs if isinstance(value, TensorType)]
        outputs = [
            {"shape": [evaluate(size, sizes) for size in value.shape], "dtype": str(value.dtype).removeprefix("torch.")}
            for value in tensors
        ]
        rows.append(
            {
                "id": node.id,
                "op": node.op,
                "module_path": node.module_path,
                "source": node.source,
                "outputs": outputs,
                "macs": evaluate(cost.macs, sizes),
                "parameters": evaluate(cost.parameters, sizes),
                "bytes": evaluate(cost.bytes_read, sizes) + evaluate(cost.bytes_written, sizes),
                "measured_seconds": seconds,
                "modelled_seconds": predicted,
                "share": seconds / measured.total if measured.total else 0.0,
                "bound": bound,
            }
        )
    return rows


def totals(rows: list[dict[str, Any]], parameters: int) -> dict[str, Any]:
    """The sums over all operations; parameters used twice count once, so their number is given."""
    names = ("macs", "bytes", "measured_seconds", "modelled_seconds")
    return {"parameters": parameters} | {name: sum(row[name] for row in rows) for name in names}


def show(document: dict[str, Any], top: int, console: Console) -> None:
    """Print the slowest operations and the totals as a table that fits 80 columns."""
    from rich.markup import escape
    from rich.table import Table

    rows, sums = document["operations"], document["totals"]
    slowest = sorted(rows, key=lambda row: row["measured_seconds"], reverse=True)[:top]
    sizes = "".join(f", {name}={size}" for name, size in document["sizes"].items())
    console.print(f"[bold]{escape(document['model'])}[/bold]: {len(rows)} operations, "
                  f"{document['threads']} thread(s){sizes}")  # fmt: skip
    table = Table(box=None, padding=(0, 1, 0, 0), show_footer=True)
    table.add_column("id", "", justify="right", style="dim")
    table.add_column("operation, output\nmodule", "total", overflow="fold", max_width=28)
    for title, name in (("MACs", "macs"), ("params", "parameters"), ("bytes", "bytes")):
        table.add_column(title, quantity(sums[name]), justify="right", no_wrap=True)
    table.add_column("time\nmeasured", duration(sums["measured_seconds"]), justify="right", no_wrap=True)
    table.add_column("roofline\nmodelled", duration(sums["modelled_seconds"]), justify="right", no_wrap=True)
    table.add_column("share", "", justify="right", no_wrap=True)
    for row in slowest:
        shape = "x".join(str(size) for size in row["outputs"][0]["shape"]) if row["outputs"] else ""
        name = row["op"].removeprefix("aten.").removesuffix(".default")
        table.add_row(
            str(row["id"]),
            f"{escape(name)} [cyan]{shape}[/cyan]\n[dim]{escape(row['module_path'])}[/dim]",
            quantity(row["macs"]),
            quantity(row["parameters"]),
            quantity(row["bytes"]),
            duration(row["measured_seconds"]),
            f"{duration(row['modelled_seconds'])}\n[dim]{row['bound'] or ''}[/dim]",
            f"{row['share']:.1%}",
        )
    console.print(table)
    if len(slowest) < len(rows):
        console.print(f"[dim]{len(rows) - len(slowest)} faster operations are not shown (--top).[/dim]")
    for note in document["notes"]:
        console.print(f"[yellow]note[/yellow] {escape(note)}")


def quantity(value: float) -> str:
    """A count in at most five characters: 0 as a dot, else three figures and k, M, G, T."""
    if not value:
        return "."
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}T"


def duration(seconds: float) -> str:
    """Seconds in three figures and a unit."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
