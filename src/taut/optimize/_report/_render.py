"""The report as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from taut.errors import ArtefactError

from . import _format
from ._schema import Report
from ._view import Limits, build_view

LARGEST_PAGE_BYTES = 300_000
# The first that fits is taken: a usual report is shown whole, a huge or hostile one is cut (and says so).
_LIMITS = (
    Limits(candidates=80, operators=20, rows=80, characters=1000),
    Limits(candidates=60, operators=16, rows=60, characters=240),
    Limits(candidates=20, operators=10, rows=20, characters=60),
)


def render_report(report: Report | Mapping[str, object]) -> str:
    """Renders the report page: no script, no external request, under `LARGEST_PAGE_BYTES` in UTF-8.

    Args:
        report: a `Report`, or the mapping that `report.json` holds. Every text in it may be hostile.

    Returns:
        The HTML document.

    Raises:
        ArtefactError: the mapping is not a report.
    """
    if not isinstance(report, Report):
        try:
            text = json.dumps(report)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArtefactError(
                f"report: not plain JSON: {error}", expected="the mapping that report.json holds"
            ) from None
        report = Report.from_json(text)
    page = ""
    for limits in _LIMITS:
        environment = _environment(limits.characters)
        template = environment.get_template("report.html.jinja")
        page = template.render(report=report, view=build_view(report, limits), limits=limits)
        if len(page.encode()) < LARGEST_PAGE_BYTES:
            break
    return page


@cache
def _environment(characters: int) -> Environment:
    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else _format.clean(str(value), characters)

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        _format.seconds,
        _format.count,
        _format.size,
        _format.ratio,
        _format.speedup,
        _format.speedup_interval,
        _format.percent,
        _format.quality,
        _format.decimal,
        _format.error,
        _format.signed_interval,
        _format.flatten,
        _format.options,
    ):
        environment.filters[function.__name__] = function
    return environment
