"""A study's report as one HTML file that needs nothing else."""

from __future__ import annotations

from html import escape

from taut.stats._quantile import Interval
from taut.stats.experiments._report import EstimatorSummary, SourceVariance, StudyReport

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
       background: #fff; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; } svg { width: 100%; height: auto; } svg text { fill: currentColor; font-size: 14px; }
.bar { fill: #7aa6d6; } .end { stroke: currentColor; stroke-width: 2; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181c; } .bar { fill: #3d6ea5; }
  th, td { border-color: #444; } }
"""

_LABELS, _WIDTH, _ROW = 210, 760, 34


def render_study(report: StudyReport) -> str:
    """The report as an HTML page with its drawings inside; nothing is loaded from elsewhere."""
    title = escape(f"{report.study}: {report.experiment}")
    state = "" if report.complete else " The study is <strong>not complete</strong>."
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{report.runs:,} runs, {report.failures} failed, {report.seconds:,.0f} s of fitting.{state}</p>",
    ]
    if report.warning:
        parts.append(f"<p><strong>Warning:</strong> {escape(report.warning)}.</p>")
    if report.sources:
        bars = [(one.source, one.std) for one in report.sources]
        parts += [
            "<h2>Which source of variation moves the score</h2>",
            f"<p>{escape(report.verdict)}.</p>",
            _bars(bars, "Standard deviation of the score by source, with 95 % chi-square intervals"),
            _source_table(report.sources),
        ]
    if report.estimators:
        means = [(one.label, one.std_of_mean) for one in report.estimators if one.std_of_mean is not None]
        parts.append("<h2>Estimators of the mean score</h2>")
        if means:
            parts.append(_bars(means, "Standard deviation of the estimator's mean, with 95 % intervals"))
        parts.append(_estimator_table(report.estimators))
        parts += [
            f"<p>std of the mean, {escape(label)} over fixed:init: {_figure(ratio)}</p>"
            for label, ratio in report.ratios.items()
        ]
    if report.errors:
        parts.append("<h2>Failures</h2><ul>" + "".join(f"<li>{escape(one)}</li>" for one in report.errors) + "</ul>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _bars(rows: list[tuple[str, Interval]], title: str) -> str:
    largest = max(one.high for _, one in rows) or 1.0
    height = _ROW * len(rows) + 30
    scale = (_WIDTH - _LABELS - 20) / largest
    drawn = [
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    ]
    for index, (name, one) in enumerate(rows):
        middle = index * _ROW + _ROW / 2
        low, high = _LABELS + one.low * scale, _LABELS + one.high * scale
        drawn.append(
            f'<text x="{_LABELS - 10}" y="{middle + 5:.0f}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="bar" x="{_LABELS}" y="{middle - 9:.0f}" width="{one.estimate * scale:.1f}" height="18"/>'
            f'<line class="end" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.0f}" y2="{middle:.0f}"/>'
            + "".join(
                f'<line class="end" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 5:.0f}" y2="{middle + 5:.0f}"/>'
                for x in (low, high)
            )
        )
    foot = height - 8
    drawn.append(
        f'<text x="{_LABELS}" y="{foot}">0</text>'
        f'<text x="{_WIDTH - 20}" y="{foot}" text-anchor="end">{largest:.4g}</text></svg></figure>'
    )
    return "".join(drawn)


def _source_table(sources: tuple[SourceVariance, ...]) -> str:
    rows = [
        (
            one.source,
            str(one.runs),
            f"{one.mean:.5f}",
            _figure(one.std),
            f"[{one.bootstrap.low:.5f}, {one.bootstrap.high:.5f}]",
            "-" if one.first is None else f"{one.first:.1%}",
        )
        for one in sources
    ]
    head = ("source", "runs", "mean", "std and 95 % chi-square interval", "bootstrap", "largest in resamples")
    return _table("Scores of runs that differ in one source alone", head, rows)


def _estimator_table(estimators: tuple[EstimatorSummary, ...]) -> str:
    rows = [
        (
            one.label,
            str(one.runs),
            f"{one.mean:.5f}",
            "-" if one.std is None else f"{one.std:.5f}",
            "-" if one.std_of_mean is None else _figure(one.std_of_mean),
            "-" if one.worth is None else f"{one.worth:.1f}",
            "-" if one.correlated is None else _figure(one.correlated.rho),
        )
        for one in estimators
    ]
    head = ("estimator", "runs", "mean", "std of a score", "std of its mean", "worth ideal runs", "correlation rho")
    return _table("The ideal estimator and those that search once", head, rows)


def _table(caption: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _figure(one: Interval) -> str:
    return f"{one.estimate:.5f} [{one.low:.5f}, {one.high:.5f}]"
