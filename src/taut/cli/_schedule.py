"""`taut schedule`: what of a model runs at the same time, found by measurement, and kept only where it pays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut._files import check_distinct, check_new, write_whole
from taut.cli._inspect import duration
from taut.cli._json import check_json, write_json
from taut.errors import ArgumentError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from taut.compile import ScheduledModel, ScheduleReport, StreamedModel


def schedule(
    model: Annotated[str, typer.Argument(help="path.py:factory, package.module:factory or a .pt2 file")],
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Threads, with the caller's; streams of a GPU. [default: 2; 8]")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, or cuda to run on streams of a GPU, captured in one CUDA graph.")
    ] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the scheduled program to this folder, as taut compile does."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Take the first batch of this data as example inputs; as for optimize.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input, e.g. 1x3x224x224 or 8x128:int64; repeat it for each input."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Schedule for batches of that size: the first dimension of each input.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds for searching and measuring, kernels not counted.")] = 60.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Keep results bit for bit: merge nothing, split no image by rows.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the timelines and tables to this new file.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the timelines to this new file for chrome://tracing or Perfetto.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a compiled program that is there already.")] = False,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - is standard output.")
    ] = None,
) -> None:
    """Schedule a model over workers or streams; print stages, predicted and measured times, bound and gap."""
    if json_path is not None:
        check_json(json_path)
    as_file = Path(json_path) if json_path not in (None, "-") else None
    check_distinct({"--out": out, "--json": as_file, "--html": html, "--trace": trace})
    for option, path in (("--html", html), ("--trace", trace)):
        if path is not None:
            check_new(path, option)
    if data is not None and shape:
        raise ArgumentError("--shape", shape, expected="no --data beside it")
    _check_device(device, out)
    from taut.cli._inspect import example_inputs
    from taut.cli._terminal import progress_bar, results
    from taut.compile import CompiledModel, ScheduledModel, check_program_destination, save, schedule_streams
    from taut.compile import schedule as schedule_model
    from taut.optimize import load_data, load_model

    if out is not None:
        check_program_destination(out, force=force)
    loaded = load_model(model)
    given = load_data(data, batch_size=batch or 1).batches[0] if data is not None else loaded.example_inputs
    inputs = of_batch(example_inputs(given, shape or []), batch)

    def finish(made: ScheduledModel | StreamedModel) -> None:
        report = made.schedule
        assert report is not None
        if isinstance(made, CompiledModel) and out is not None:
            save(made, out, example_inputs=inputs, force=force)
        _write(report, loaded.name, html, trace)
        document = {"model": loaded.name, "program": None if out is None else str(out), **report.to_dict()}
        show(report, loaded.name, out, results(stdout=json_path != "-"))
        if json_path is not None:
            write_json(document, json_path)

    try:
        with progress_bar() as progress:
            progress("capturing the model", 0.0)
            options: dict[str, Any] = {"budget": budget, "exact": exact, "progress": progress}
            if device == "cpu":
                made = schedule_model(loaded.module, inputs, workers=workers or 2, **options)
            else:
                made = schedule_streams(loaded.module, inputs, device=device, streams=workers or 8, **options)
    except Interrupted as error:
        if isinstance(error.result, ScheduledModel):
            finish(error.result)
        raise
    finish(made)


def of_batch(inputs: tuple[Any, ...], batch: int | None) -> tuple[Any, ...]:
    """Inputs with `batch` samples along the first dimension: the first ones, or all of them again and again.

    Raises:
        ArgumentError: an input has no samples.
    """
    import torch

    if batch is None:
        return inputs
    made = []
    for value in inputs:
        if isinstance(value, torch.Tensor):
            if value.dim() == 0 or len(value) == 0:
                raise ArgumentError(
                    "--batch", batch, expected="no --batch: an input has no first dimension with samples"
                )
            value = value[torch.arange(batch) % len(value)]
        made.append(value)
    return tuple(made)


def show(report: ScheduleReport, name: str, out: Path | None, console: Console) -> None:
    """Print the stages, the programs that were measured, and what was kept, on 80 columns."""
    from rich.markup import escape

    from taut.cli._text import one_line, printable
    from taut.compile.scheduling import summary

    console.print(f"[bold]{escape(one_line(name))}[/bold]: the best stages with barriers between them")
    console.print(_stages(report))
    console.print(_candidates(report))
    for line in summary(report):
        console.print(printable(line), markup=False, soft_wrap=True)
    where = "not written (--out)" if out is None else printable(str(out))
    console.print(f"program: {where}", markup=False, soft_wrap=True)


def _stages(report: ScheduleReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from taut.cli._text import one_line

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", justify="right", style="dim")
    table.add_column("strategy")
    table.add_column("groups", overflow="fold")
    table.add_column("predicted", justify="right", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    for number, stage in enumerate(report.stages, 1):
        groups = " [dim]|[/] ".join(", ".join(escape(one_line(name)) for name in group) for group in stage.groups)
        times = "~" * stage.estimated + duration(stage.predicted_seconds), duration(stage.measured_seconds)
        table.add_row(str(number), stage.strategy, groups, *times)
    return table


def _candidates(report: ScheduleReport) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("program")
    for title in ("predicted", "measured", "over sequential"):
        table.add_column(title, justify="right", no_wrap=True)
    first = report.candidates[0].measured_seconds
    for one in report.candidates:
        times = duration(one.predicted_seconds), duration(one.measured_seconds)
        mark = " [green]kept[/]" if one.name == report.kept else ""
        table.add_row(one.name + mark, *times, f"{first / one.measured_seconds:.2f}x")
    return table


def _check_device(device: str, out: Path | None) -> None:
    """Refuse a device that there is not, and a folder for what cannot be written."""
    if device == "cpu":
        return
    from taut.compile.scheduling import CudaStreams

    if out is not None:
        raise ArgumentError(
            "--out",
            str(out),
            expected=f"no --out beside --device {device}, since a CUDA graph lives in its process only",
            fix="call taut.compile.schedule_streams where the model is to run",
        )
    try:
        CudaStreams(device)
    except ArgumentError as error:
        raise ArgumentError("--device", device, expected=str(error.expected), fix=error.fix) from error


def _write(report: ScheduleReport, name: str, html: Path | None, trace: Path | None) -> None:
    from taut.compile.scheduling import chrome_trace, render_schedule

    if html is not None:
        page = render_schedule(name, report)
        write_whole(html, lambda path: path.write_text(page, encoding="utf-8"))
    if trace is not None:
        text = json.dumps(chrome_trace(report), allow_nan=False)
        write_whole(trace, lambda path: path.write_text(text, encoding="utf-8"))
