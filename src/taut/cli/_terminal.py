"""What the main job shows on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from taut.cli._text import printable

if TYPE_CHECKING:
    from taut.optimize import Report, Trial

_MOST_LAYERS = 60
_MARKS = {
    "kept": "[green]kept[/]",
    "rejected": "rejected",
    "not_applicable": "[dim]not applicable[/]",
    "not_tried": "[dim]not tried[/]",
    "peer": "[blue]peer[/]",
}


def results(*, stdout: bool = True) -> Console:
    """Where results go: standard output, or standard error where standard output carries JSON."""
    return Console(stderr=not stdout, highlight=False)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error while on a terminal; elsewhere each new step is a line there."""
    console = Console(stderr=True)
    if not console.is_terminal:
        said: set[str] = set()

        def say(doing: str, share: float) -> None:
            if doing not in said:
                said.add(doing)
                console.print(f"[{share:4.0%}] {doing}", markup=False, highlight=False)

        yield say
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=_plain(doing), completed=share)


def _plain(text: str) -> str:
    return escape(printable(text))


def show_plan(plan: Sequence[Trial], console: Console) -> None:
    """What would be tried."""
    table = Table(title="What would be tried (modelled, nothing measured)", title_justify="left")
    table.add_column("technique")
    table.add_column("modelled gain", justify="right")
    table.add_column("why, or what it would change", overflow="fold")
    for trial in plan:
        gain = "-" if trial.predicted is None else f"{trial.predicted:.2f}x"
        table.add_row(trial.name, gain, _plain(trial.reason or trial.summary or trial.title))
    console.print(table)


def show_result(report: Report, bundle: Path | None, console: Console) -> None:
    """The verdict table, the layers where any is quantised, and the headline."""
    _show_candidates(report, console)
    _show_layers(report, console)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {_plain(warning)}")
    for line in summary_lines(report):
        console.print(_plain(line), soft_wrap=True)
    if bundle is not None:
        console.print(f"bundle: {_plain(str(bundle))} (report: {_plain(str(bundle / 'report.html'))})", soft_wrap=True)


def _show_candidates(report: Report, console: Console) -> None:
    by_size = report.goal == "size"
    table = Table(title=_plain(f"{report.model.name}: candidates"), title_justify="left")
    table.add_column("candidate")
    table.add_column("modelled", justify="right")
    table.add_column("measured", justify="right")
    if by_size:
        table.add_column("bytes", justify="right")
    table.add_column("decision")
    table.add_column("reason", overflow="fold")
    measured_ones = [one for one in report.candidates if one.comparison is not None or one.quality is not None]
    for candidate in measured_ones:
        on_top = [name for name in candidate.on_top_of if name != "graph"]
        name = f"+ {candidate.name}" if on_top else candidate.name
        name += _variant(candidate.options)
        modelled = "-" if candidate.predicted is None else f"{candidate.predicted:.2f}x"
        compared = candidate.comparison
        measured = "-" if compared is None else f"{compared.ratio:.2f}x"
        # The report has the figures; here a measured candidate's verdict is enough.
        reason = candidate.reason if compared is None or compared.low is None else compared.verdict
        if compared is not None and candidate.name not in ("graph", "threads"):
            if by_size:
                reason = "smaller" if candidate.status == "kept" else "not smaller than what was kept"
            elif candidate.status == "rejected" and reason == "faster" and candidate.name == "compile":
                reason = "faster still without some passes"
            elif candidate.status == "rejected" and reason == "faster":
                reason = "faster alone, not on top of what was kept"
        size = [f"{candidate.stored_bytes:,}" if candidate.stored_bytes is not None else "-"] if by_size else []
        table.add_row(_plain(name), modelled, measured, *size, _MARKS[candidate.status], _plain(reason))
    if measured_ones:
        console.print(table)
    for status, words in (("not_applicable", "not applicable"), ("not_tried", "not tried"), ("rejected", "rejected")):
        others = [one for one in report.candidates if one.status == status and one not in measured_ones]
        names = ", ".join(dict.fromkeys(f"+ {one.name}" if len(one.on_top_of) > 1 else one.name for one in others))
        if names:
            console.print(f"[dim]{words} (the report says why): {_plain(names)}[/]")


def _show_layers(report: Report, console: Console) -> None:
    if not report.layers:
        return
    table = Table(title="How each weight is stored", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("format")
    table.add_column("bytes", justify="right")
    table.add_column("bits", justify="right")
    table.add_column("SQNR, dB", justify="right")
    with_errors = any(layer.error is not None for layer in report.layers)
    if with_errors:
        table.add_column("error", justify="right")
    for layer in report.layers[:_MOST_LAYERS]:
        sqnr = "-" if layer.sqnr_db is None else f"{layer.sqnr_db:.2f}"
        error = [] if not with_errors else ["-" if layer.error is None else f"{layer.error:.2g}"]
        runs = f" [dim]{layer.runs}[/]" if layer.runs == "emulated" else ""
        path, form = _plain(layer.path), _plain(layer.format)
        table.add_row(path, form + runs, f"{layer.bytes_after:,}", f"{layer.bits:.3f}", sqnr, *error)
    console.print(table)
    if len(report.layers) > _MOST_LAYERS:
        console.print(f"[dim]{len(report.layers) - _MOST_LAYERS} more layers are in the report.[/]")


def _variant(options: Mapping[str, object]) -> str:
    """What a pass was given, a number format or workers, which tells its candidates apart."""
    if options.get("queues"):
        return " (on several workers)"
    chosen = options.get("scheme") or options.get("format")
    chosen = "by layer" if chosen == "float32" and options.get("layers") else chosen
    return f" ({chosen})" if chosen else ""


def summary_lines(report: Report) -> list[str]:
    """The headline in words and figures."""
    lines = []
    size = report.size_bytes
    stored = ""
    if size is not None and size.before and size.after is not None:
        stored = f"size: {size.before:,} -> {size.after:,} bytes, {size.after / size.before:.1%} of the original"
    if report.status == "partial":
        unproven = "; the result was not proven against eager" if report.headline is None else ""
        lines.append(f"PARTIAL: {report.partial_reason}{unproven}")
    kept = " + ".join(step.name + _variant(step.options) for step in report.recipe.steps) or "no pass"
    prepared = f" of weights that were {' and '.join(report.recipe.prepared)}" if report.recipe.prepared else ""
    lines.append(f"kept: {kept}{prepared}, {report.recipe.threads} thread(s)")
    if report.goal == "size" and stored:
        lines.append(stored)
    emulated = sum(layer.runs == "emulated" for layer in report.layers)
    if emulated:
        lines.append(f"{emulated} of {len(report.layers)} layers have no kernel and are emulated")
    head = report.headline
    if head is None and report.status == "complete":
        lines.append("nothing paid: the bundle runs the unmodified graph")
    if head is not None:
        low, high = (f"{value:.3f}" if value is not None else "?" for value in (head.low, head.high))
        lines.append(
            f"end to end against the best eager setting ({head.baseline_threads} thread(s)): {head.verdict}, "
            f"{head.ratio:.3f}x [{low}, {high}] at {head.confidence:.0%}, {head.baseline_seconds * 1e3:.3f} -> "
            f"{head.candidate_seconds * 1e3:.3f} ms a batch ({head.clock})"
        )
    metric = report.metric
    if metric is not None and metric.baseline is not None:
        line = f"{metric.name}: {metric.baseline:.5g}"
        if metric.final is not None and metric.change is not None:
            line += f" -> {metric.final:.5g}, change [{metric.change.low:+.2g}, {metric.change.high:+.2g}]"
        lines.append(line)
    if report.goal != "size" and stored:
        lines.append(stored)
    return lines
