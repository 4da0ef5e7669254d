"""A schedule's report as one HTML file that needs nothing else, and its timelines for a trace viewer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from taut.compile.scheduling._report import ScheduleReport, TimelineSpan

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
       background: #fff; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ccc; text-align: right; vertical-align: top; }
th, td { white-space: nowrap; } td.name { white-space: normal; } th.name, td.name { text-align: left; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { fill: currentColor; font-size: 12px; }
svg .lane { fill: #8882; } svg .limit { stroke: currentColor; stroke-dasharray: 4 3; }
svg .span text { fill: #111; font-size: 11px; pointer-events: none; } svg .span rect { stroke: #fff; stroke-width: .5; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181c; } th, td { border-color: #444; }
  svg .span rect { stroke: #16181c; } }
"""
_COLOURS = ("#7aa6d6", "#e3a36f", "#8fc08a", "#d58fae", "#b6a3d8", "#c9bd6b", "#7fc4c1", "#b8b8b8")
_WIDTH, _LEFT, _LANE = 960, 70, 34
_LETTER = 6.2
_KEY, _MOST_KINDS = 110, 8


def render_schedule(name: str, report: ScheduleReport) -> str:
    """The report of a schedule as an HTML page with its timelines drawn inside; nothing is loaded from elsewhere.

    Args:
        name: of the model.
        report: with timelines, or without.
    """
    title = escape(f"{name}: schedule")
    parts = [f"<h1>{title}</h1>", *(f"<p>{escape(line)}</p>" for line in summary(report))]
    span = max((one.end for spans in report.timelines.values() for one in spans), default=0.0)
    for candidate, spans in report.timelines.items():
        kept = ", which was kept" if candidate == report.kept else ""
        heading = f"One call of the program {candidate!r}{kept}, with the bound"
        parts.append(
            f"<figure><figcaption>{escape(heading)}</figcaption>"
            f"{draw_timeline(spans, report.workers, report.bound, span, report.lane)}</figure>"
        )
    parts += [_candidates(report), _stages(report)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def summary(report: ScheduleReport) -> list[str]:
    """What was kept and why, the bound and the gap, and what the search cost, in sentences."""
    where = "" if report.lane == "worker" else f" of {report.device}"
    path, work = _microseconds(report.critical_path), _microseconds(report.work_by_workers)
    lines = [
        f"kept: {report.kept}, {report.workers} {report.lane}s{where}, {_microseconds(report.seconds)} a call",
        f"bound: no schedule of these steps takes less than {_microseconds(report.bound)} (critical path {path}, work "
        f"shared evenly {work}); the gap to it is {report.gap:.0%}",
    ]
    verdict = report.verdict
    if verdict is not None:
        ends = ", ".join("?" if end is None else f"{end:.3f}" for end in (verdict.low, verdict.high))
        lines.append(
            f"{verdict.candidate} against sequential: {verdict.verdict}, {verdict.ratio:.3f}x [{ends}] at "
            f"{verdict.confidence:.0%} over {verdict.pairs} pairs"
        )
    error = report.stage_error
    if error is not None:
        both = _microseconds(report.predicted_total), _microseconds(report.measured_total)
        lines.append(f"stages: predicted {both[0]}, measured {both[1]}; the median stage is off by {error:.1%}")
    left = "" if report.complete else "; it ended before the best was certain"
    lines.append(
        f"search: {report.operators} operators, {report.states:,} states, {report.transitions:,} transitions, "
        f"{report.measured:,} of {report.requests:,} stages measured in {report.search_seconds:.1f} s{left}"
    )
    estimated = sum(stage.estimated for stage in report.stages)
    if estimated or report.estimated_steps:
        lines.append(
            f"estimated for want of time or of free cores: {estimated} of {len(report.stages)} stages (~), "
            f"{report.estimated_steps} steps on all workers"
        )
    if report.untimed:
        lines.append(f"not timed for want of time: {', '.join(report.untimed)}")
    return lines


def draw_timeline(
    spans: Sequence[TimelineSpan], workers: int, bound: float, length: float, lane: str = "worker"
) -> str:
    """One call as SVG: a lane for each worker, a bar for each step, and a line at the bound.

    Args:
        spans: of the steps.
        workers: lanes.
        bound: seconds at which to draw the line.
        length: seconds that the drawing is wide.
        lane: what a worker is called.
    """
    scale = (_WIDTH - _LEFT - 10) / max(length, bound, 1e-12)
    kinds = list(dict.fromkeys(one.kind for one in spans))
    height = workers * _LANE + 50
    drawn = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="timeline">']
    for worker in range(workers):
        top = worker * _LANE
        drawn.append(
            f'<text x="0" y="{top + 20}">{escape(lane)} {worker}</text>'
            f'<rect class="lane" x="{_LEFT}" y="{top + 2}" width="{_WIDTH - _LEFT - 10}" height="{_LANE - 4}"/>'
        )
    for one in spans:
        left, width = _LEFT + one.begin * scale, max((one.end - one.begin) * scale, 0.4)
        colour = _COLOURS[kinds.index(one.kind) % len(_COLOURS)]
        top = one.worker * _LANE + 4
        title = escape(f"{one.label or one.kind} ({one.kind}): {_microseconds(one.end - one.begin)}")
        letters = int((width - 6) / _LETTER)
        text = one.label if len(one.label) <= letters else one.label[: letters - 1] + "…" if letters >= 3 else ""
        drawn.append(
            f'<g class="span"><title>{title}</title>'
            f'<rect x="{left:.2f}" y="{top}" width="{width:.2f}" height="{_LANE - 8}" fill="{colour}"/>'
            f'<text x="{left + 3:.2f}" y="{top + 17}">{escape(text)}</text></g>'
        )
    foot, at = height - 28, _LEFT + bound * scale
    for number, kind in enumerate(kinds[:_MOST_KINDS]):
        left = _LEFT + number * _KEY
        drawn.append(
            f'<rect x="{left}" y="{height - 17}" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>'
            f'<text x="{left + 15}" y="{height - 8}">{escape(kind)}</text>'
        )
    drawn.append(
        f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{workers * _LANE}"/>'
        f'<text x="{_LEFT}" y="{foot}">0</text>'
        f'<text x="{min(at, _WIDTH - 200):.1f}" y="{foot}" text-anchor="middle">bound {_microseconds(bound)}</text>'
        f'<text x="{_WIDTH - 10}" y="{foot}" text-anchor="end">{_microseconds(max(length, bound))}</text></svg>'
    )
    return "".join(drawn)


def chrome_trace(report: ScheduleReport) -> dict[str, Any]:
    """The timelines in the trace event format of Chrome and Perfetto: a process for each program, a thread a worker."""
    events: list[dict[str, Any]] = []
    for process, (candidate, spans) in enumerate(report.timelines.items()):
        name = f"{candidate} (kept)" if candidate == report.kept else candidate
        events.append({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}})
        for worker in range(report.workers):
            arguments = {"name": f"{report.lane} {worker}"}
            events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": worker, "args": arguments})
        for one in spans:
            events.append(
                {
                    "ph": "X",
                    "name": one.label or one.kind,
                    "cat": one.kind,
                    "pid": process,
                    "tid": one.worker,
                    "ts": one.begin * 1e6,
                    "dur": (one.end - one.begin) * 1e6,
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _candidates(report: ScheduleReport) -> str:
    rows = [
        (
            one.name + (" (kept)" if one.name == report.kept else ""),
            _microseconds(one.predicted_seconds),
            _microseconds(one.measured_seconds),
            f"{report.candidates[0].measured_seconds / one.measured_seconds:.2f}x",
        )
        for one in report.candidates
    ]
    return _table("Programs that were measured", ("program", "predicted", "measured", "over sequential"), rows)


def _stages(report: ScheduleReport) -> str:
    rows = [
        (
            " | ".join(", ".join(group) for group in one.groups),
            one.strategy,
            "~" * one.estimated + _microseconds(one.predicted_seconds),
            _microseconds(one.measured_seconds),
        )
        for one in report.stages
    ]
    head = ("groups", "strategy", "predicted", "measured")
    return _table("The best stages with barriers between them, groups side by side", head, rows)


def _table(caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f'<th scope="col"{_named(i)}>{escape(name)}</th>' for i, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{_named(i)}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _named(column: int) -> str:
    return ' class="name"' if column == 0 else ""


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} µs" if seconds < 0.1 else f"{seconds * 1e3:,.1f} ms"
