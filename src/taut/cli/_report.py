"""`taut report`: what a bundle's job found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taut._files import check_new, write_whole
from taut.cli._json import check_json, write_json


def report(
    bundle: Annotated[Path, typer.Argument(help="A folder written by taut optimize.")],
    output: Annotated[Path | None, typer.Option(help="Render the HTML page to this new file.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON to this new file; - for standard output.")
    ] = None,
) -> None:
    """Show a bundle's report on the terminal, or render it again as HTML."""
    if json is not None:
        check_json(str(json))
    if output is not None:
        check_new(output, "--output")
    from taut.cli._terminal import results, show_result
    from taut.optimize import read_report, render_report

    found = read_report(bundle)
    show_result(found, bundle, results(stdout=str(json) != "-"))
    if output is not None:
        page = render_report(found)
        write_whole(output, lambda path: path.write_text(page, encoding="utf-8"))
    if json is not None:
        write_json(found.model_dump(mode="json"), str(json))
