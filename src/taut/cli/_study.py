"""`taut study`: run a study of an experiment, and report what it found."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taut._files import check_distinct, check_new, write_whole
from taut.cli._json import check_json, write_json
from taut.cli._text import one_line, printable
from taut.errors import ArgumentError, MeasurementError

if TYPE_CHECKING:
    from taut.stats import InProcess, Processes, RayWorkers, Study, StudyReport

study = typer.Typer(help="Run experiments many times, and find out what moves their scores.", no_args_is_help=True)

Html = Annotated[Path | None, typer.Option(help="Write the report as HTML to this new file.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the report as JSON to this new file; - for standard output.")
]


@study.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="A Python file that defines `study`.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of the runs; by default NAME.study in the current folder.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    ray: Annotated[bool, typer.Option("--ray", help="Make the runs on Ray.")] = False,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; without it, Ray runs on this host.")] = None,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Make the runs again that failed earlier.")
    ] = False,
) -> None:
    """Make every run of a study that its store lacks; stop it when you like and run it again."""
    if address is not None and not ray:
        raise ArgumentError("--address", address, expected="--ray beside it")
    from taut.cli._terminal import progress_bar

    found = _load(file)
    folder = store or Path(f"{file.stem}.study")
    with progress_bar() as progress:
        report = found.run(
            folder,
            executor=_executor(file, workers, ray=ray, address=address),
            retry_failures=retry_failures,
            progress=lambda doing, share: progress(one_line(doing), share),
        )
    _show(report, folder, stdout=True)
    _check_scores(report)


@study.command("report")
def study_report(
    store: Annotated[Path, typer.Argument(help="A folder written by taut study run.")],
    html: Html = None,
    json: Json = None,
    scores: Annotated[
        Path | None, typer.Option(help="Write the scores of one part to this new CSV file, as taut compare reads them.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="With --scores: which part (default: ideal, else source:all_together)."),
    ] = None,
) -> None:
    """Show which source of variation moves the score, and what each estimator is worth."""
    if json is not None:
        check_json(str(json))
    as_file = json if json is not None and str(json) != "-" else None
    check_distinct({"--json": as_file, "--html": html, "--scores": scores})
    for option, path in (("--html", html), ("--scores", scores)):
        if path is not None:
            check_new(path, option)
    if part is not None and scores is None:
        raise ArgumentError("--part", part, expected="--scores FILE beside it")
    from taut.stats import StudyStore, render_study, score_rows, summarise

    found = StudyStore.read(store)
    report = summarise(found)
    rows = [] if scores is None else score_rows(found, part)
    _show(report, store, stdout=str(json) != "-")
    if html is not None:
        page = printable(render_study(report))
        write_whole(html, lambda path: path.write_text(page, encoding="utf-8"))
    if scores is not None:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("part", "seed", "score"))
        writer.writerows((row["part"], row["seed"], repr(row["score"])) for row in rows)
        write_whole(scores, lambda path: path.write_text(table.getvalue(), encoding="utf-8"))
        exported = str(rows[0]["part"]) if rows else part or "none"
        said = f"scores: {len(rows)} of the part {exported}"
        if exported.startswith("fixed:"):
            said += "; they share a search, so compare them with --correlation (rho above)"
        typer.echo(one_line(said), err=str(json) == "-")
    if json is not None:
        write_json(report.to_dict(), str(json))
    _check_scores(report)


def _load(file: Path) -> Study:
    if file.suffix != ".py" or not file.is_file():
        raise ArgumentError("FILE.py", str(file), expected="a Python file that exists and defines `study`")
    from taut.stats import load_study

    return load_study(f"{file}:study")


def _executor(file: Path, workers: int, *, ray: bool, address: str | None) -> InProcess | Processes | RayWorkers:
    from taut.stats import InProcess, Processes, RayWorkers

    reference = f"{file}:study"
    if ray:
        return RayWorkers(workers, reference, address)
    return InProcess() if workers == 1 else Processes(workers, reference)


def _show(report: StudyReport, folder: Path, *, stdout: bool) -> None:
    for line in report.lines():
        typer.echo(one_line(line), err=not stdout)
    typer.echo(one_line(f"store: {folder}"), err=not stdout)


def _check_scores(report: StudyReport) -> None:
    """A study without a single score is no success, though its store is as it should be."""
    if report.runs and report.failures == report.runs:
        raise MeasurementError(
            f"{report.study}: all {report.runs} runs failed; the first with {report.errors[0]}",
            fix="make the experiment run on its own, then run the study again with --retry-failures",
        )
