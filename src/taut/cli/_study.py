"""`taut study`: run a study of an experiment, and report what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taut._files import check_distinct, check_new, write_whole
from taut.cli._json import check_json, write_json
from taut.errors import ArgumentError

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
            progress=progress,
        )
    _show(report, folder, stdout=True)


@study.command("report")
def study_report(
    store: Annotated[Path, typer.Argument(help="A folder written by taut study run.")],
    html: Html = None,
    json: Json = None,
    scores: Annotated[
        Path | None, typer.Option(help="Write the scores to this new CSV file, as taut compare reads them.")
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
    from taut.stats import StudyStore, render_study, score_rows, summarise

    found = StudyStore.read(store)
    report = summarise(found)
    _show(report, store, stdout=str(json) != "-")
    if html is not None:
        page = render_study(report)
        write_whole(html, lambda path: path.write_text(page, encoding="utf-8"))
    if scores is not None:
        table = "".join(f"{row['part']},{row['seed']},{row['score']!r}\n" for row in score_rows(found))
        write_whole(scores, lambda path: path.write_text(f"part,seed,score\n{table}", encoding="utf-8"))
    if json is not None:
        write_json(report.to_dict(), str(json))


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
        typer.echo(line, err=not stdout)
    typer.echo(f"store: {folder}", err=not stdout)
