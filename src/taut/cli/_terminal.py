"""What the main job shows on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from taut.cli._text import printable

if TYPE_CHECKING:
    from taut.optimize import Report, Trial

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
    """The verdict table and the headline."""
    table = Table(title=_plain(f"{report.model.name}: candidates"), title_justify="left")
    table.add_column("candidate")
    table.add_column("modelled", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("decision")
    table.add_column("reason", overflow="fold")
    measured_ones = [one for one in report.candidates if one.comparison is not None or one.quality is not None]
    for candidate in measured_ones:
        on_top = [name for name in candidate.on_top_of if name != "graph"]
        name = f"+ {candidate.name}" if on_top else candidate.name
        modelled = "-" if candidate.predicted is None else f"{candidate.predicted:.2f}x"
        compared = candidate.comparison
        measured = "-" if compared is None else f"{compared.ratio:.2f}x"
        # The report has the figures; here a measured candidate's verdict is enough.
        reason = candidate.reason if compared is None or compared.low is None else compared.verdict
        if reason == "faster" and candidate.status == "rejected":
            reason = "faster alone, not on top of what was kept"
        table.add_row(_plain(name), modelled, measured, _MARKS[candidate.status], _plain(reason))
    if measured_ones:
        console.print(table)
    for status, words in (("not_applicable", "not applicable"), ("not_tried", "not tried"), ("rejected", "rejected")):
        others = [one for one in report.candidates if one.status == status and one not in measured_ones]
        names = ", ".join(dict.fromkeys(f"+ {one.name}" if len(one.on_top_of) > 1 else one.name for one in others))
        if names:
            console.print(f"[dim]{words} (the report says why): {_plain(names)}[/]")
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {_plain(warning)}")
    for line in summary_lines(report):
        console.print(_plain(line), soft_wrap=True)
    if bundle is not None:
        console.print(f"bundle: {_plain(str(bundle))} (report: {_plain(str(bundle / 'report.html'))})", soft_wrap=True)


def summary_lines(report: Report) -> list[str]:
    """The headline in words and figures."""
    lines = []
    if report.status == "partial":
        unproven = "; the result was not proven against eager" if report.headline is None else ""
        lines.append(f"PARTIAL: {report.partial_reason}{unproven}")
    kept = " + ".join(step.name for step in report.recipe.steps) or "no pass"
    lines.append(f"kept: {kept}, {report.recipe.threads} thread(s)")
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
    size = report.size_bytes
    if size is not None and size.before is not None and size.after is not None:
        lines.append(f"size: {size.before:,} -> {size.after:,} bytes")
    return lines
