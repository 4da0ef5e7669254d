"""`taut inspect` of a compiled program: kernels, memory, what runs on ATen, bytecode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taut.cli._compile import fallback_lines
from taut.cli._inspect import duration, parsed_shape, quantity
from taut.cli._json import write_json
from taut.cli._terminal import progress_bar, results
from taut.cli._text import one_line, printable
from taut.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from taut.compile import CallableProgram, Inspection

_MOST_OPERATIONS = 4


def inspect_compiled(path: Path, shapes: list[str], top: int, json_path: str | None, *, bytecode: bool) -> None:
    """Take a program apart on random inputs, print it, and write it as JSON where that is wanted.

    Raises:
        ArgumentError: shapes are missing, or cannot be read.
        ArtefactError: the folder holds no program.
        GuardError: the program refuses inputs of these shapes.
    """
    from taut.compile import inspect_program, load
    from taut.cost import calibrate

    with progress_bar() as progress:
        progress("calibrating the host (once)", 0.0)
        peaks = calibrate(threads=1)
        model = load(
            path,
            workers=1,
            progress=lambda _stage, done, total: progress(f"generating {total} kernels", 0.8 * done / total),
        )
        progress("timing each instruction", 0.9)
        found = inspect_program(model, program_inputs(model, shapes), peaks)
    show(found, path, top, results(stdout=json_path != "-"), bytecode=bytecode)
    if json_path is not None:
        write_json({"program": str(path), **found.to_dict()}, json_path)


def program_inputs(model: CallableProgram, shapes: list[str]) -> list[Any]:
    """Random inputs of the shapes that were typed, or else of those that the program was compiled with."""
    from taut.compile import example_of, random_inputs

    parameters = model.program.parameters
    example = example_of(model.program)
    if not shapes:
        if example is None:
            raise ArgumentError(
                "--shape", None, expected=f"a shape for each of the {len(parameters)} inputs, since none was noted"
            )
        return random_inputs(parameters, [shape for shape, _ in example], [largest for _, largest in example])
    if len(shapes) != len(parameters):
        raise ArgumentError("--shape", shapes, expected=f"{len(parameters)} shapes, one for each input")
    typed = [parsed_shape(text)[0] for text in shapes]
    for shape, parameter in zip(typed, parameters, strict=True):
        if len(shape) != len(parameter.shape):
            raise ArgumentError("--shape", shapes, expected=f"{len(parameter.shape)} sizes for {parameter.name}")
    return random_inputs(parameters, typed, [0] * len(typed) if example is None else [most for _, most in example])


def show(found: Inspection, path: Path, top: int, console: Console, *, bytecode: bool) -> None:
    """Print tables that fit 80 columns."""
    from rich.markup import escape

    shapes = ", ".join(
        f"{one_line(name)}={'x'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in found.inputs.items()
    )
    took = f"{duration(found.seconds)} a call on 1 thread"
    console.print(f"[bold]{escape(printable(str(path)))}[/bold]: {took}, {escape(shapes)}")
    console.print(_table(found, top))
    if top < len(found.steps):
        console.print(f"[dim]{len(found.steps) - top} faster steps are not shown (--top).[/dim]")
    console.print(f"sizes, checks and memory: {duration(found.overhead_seconds)} by the profile", markup=False)
    for memory in found.memory:
        where = "" if len(found.memory) < 2 else f" of {one_line(memory.function)}"
        console.print(
            f"arena{where}: {_count(memory.arena_bytes)} bytes for {memory.tensors} tensors in {memory.regions} "
            f"regions; at one time {_count(memory.lower_bound_bytes)} are in use; {memory.storage_bytes:,} outside",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"constants: {found.constants_bytes:,} bytes", markup=False)
    for line in fallback_lines(found.fallbacks, found.failed):
        console.print(printable(line), markup=False, soft_wrap=True)
    if bytecode:
        console.print(printable(found.bytecode), markup=False, soft_wrap=True)


def _table(found: Inspection, top: int) -> Table:
    from rich.markup import escape
    from rich.table import Table

    measured = sum(step.measured_seconds for step in found.steps)
    modelled = sum((step.predicted_seconds or 0.0) * step.calls for step in found.steps)
    table = Table(box=None, padding=(0, 1, 0, 0), show_footer=True)
    table.add_column("at", "", justify="right", style="dim")
    table.add_column("step\noutput, module", "total", overflow="fold", max_width=30)
    for name in ("flops", "bytes"):
        total = sum(getattr(step, name) or 0 for step in found.steps)
        table.add_column(name, quantity(total), justify="right", no_wrap=True)
    table.add_column("time\nmeasured", duration(measured), justify="right", no_wrap=True)
    table.add_column("roofline\nmodelled", duration(modelled), justify="right", no_wrap=True)
    for step in sorted(found.steps, key=lambda step: step.measured_seconds, reverse=True)[:top]:
        more = " ..." if len(step.operations) > _MOST_OPERATIONS else ""
        operations = escape(" ".join(step.operations[:_MOST_OPERATIONS]) + more)
        shape = step.shapes[-1]
        output = "?" if shape is None else "x".join(map(str, shape)) or "scalar"
        name = escape(one_line(step.name).replace("aten.", "").replace(".default", ""))
        kind = "" if step.kind == "generated" else f" [yellow]{step.kind}[/]"
        table.add_row(
            str(step.instruction) if len(found.memory) < 2 else f"{escape(one_line(step.function))}:{step.instruction}",
            f"{name}{kind} [dim]{operations}[/]\n[cyan]{output}[/] [dim]{escape(one_line(step.label))}[/]",
            "?" if step.flops is None else quantity(step.flops),
            "?" if step.bytes is None else quantity(step.bytes),
            duration(step.measured_seconds) + (f"\n[dim]{step.calls} calls[/]" if step.calls > 1 else ""),
            "-" if step.predicted_seconds is None else duration(step.predicted_seconds * step.calls),
        )
    return table


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
