"""Advice as one self-contained page: a chart over bandwidths and the table of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from taut.distributed._advise import Advice, ratio
from taut.distributed._candidates import BASELINES, KEPT_NOTE, kept_text
from taut.distributed._line_chart import STYLE, line_chart
from taut.distributed._what_if import FACTORS, WhatIfs
from taut.stats import Interval

_MOST_LINES = 8
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1c2733}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #d5dbe1;"
    "text-align:right}td:first-child,th:first-child{text-align:left}"
)


def render_advice(
    advice: Advice,
    bandwidths: Sequence[float],
    lines: Mapping[str, Sequence[Interval]],
    what_ifs: WhatIfs | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page, with no script and no request to anywhere.

    Args:
        advice: for the job as it is.
        bandwidths: bytes per second, ascending.
        lines: step times over them, by compressor; the first eight are drawn.
        what_ifs: of the same job; they get charts of their own.
        notes: what the figures rest on, a sentence each.
    """
    rows = Markup("").join(
        Markup("<tr><td>{}</td><td>{}</td><td>{:.1f}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            one.name,
            milliseconds(one.seconds),
            one.sent / 1e6,
            kept_text(one.name),
            ratio(one.speedup[advice.baseline]),
            one.verdict if one.name != advice.baseline else "baseline",
            bandwidth_text(one.crossover),
        )
        for one in advice.predictions
    )
    doubts = [f"The profile is doubtful: {doubt}." for doubt in advice.doubts]
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Compression advice: {}</title>'
        "<style>{}</style></head><body><h1>{}</h1><p><strong>{}</strong></p>{}"
        "<p>All figures are modelled from measured costs of links and encoders; intervals hold 95 % of what the "
        "measurements leave open. They say how long a step takes, not how many steps an accuracy takes: what keeps "
        "little of a gradient may need more. {}.</p>{}"
        "<table><thead><tr><th>compressor</th><th>step, ms</th><th>MB sent a rank</th><th>keeps</th>"
        "<th>speed-up over {}</th><th>verdict</th><th>pays below</th></tr></thead><tbody>{}</tbody></table>{}"
        "</body></html>"
    ).format(
        advice.workload,
        Markup(_STYLE + STYLE),
        f"{advice.workload} on {advice.cluster.ranks} workers, {link_text(advice.cluster.bandwidth)}",
        advice.answer,
        Markup("").join(Markup("<p>{}</p>").format(one) for one in (*doubts, *notes)),
        KEPT_NOTE,
        _over_bandwidths(bandwidths, lines, advice),
        advice.baseline,
        rows,
        _what_if_part(what_ifs, advice) if what_ifs is not None else "",
    )


def milliseconds(one: Interval) -> str:
    """An interval of seconds in milliseconds."""
    return f"{one.estimate * 1e3:.1f} [{one.low * 1e3:.1f}, {one.high * 1e3:.1f}]"


def link_text(bandwidth: float | None) -> str:
    """Bytes per second as the speed of a link."""
    if bandwidth is None:
        return "loopback"
    bits = 8 * bandwidth
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "Gbit/s"), (1e6, "Mbit/s")) if bits >= unit), (1e3, "kbit/s")
    )
    return f"{bits / unit:.3g} {name}"


def bandwidth_text(crossover: float | None) -> str:
    """The bandwidth below which something pays."""
    if crossover is None:
        return "-"
    return "any link" if math.isinf(crossover) else link_text(crossover)


def _over_bandwidths(bandwidths: Sequence[float], lines: Mapping[str, Sequence[Interval]], advice: Advice) -> Markup:
    decades = range(math.ceil(math.log10(8 * bandwidths[0])), math.floor(math.log10(8 * bandwidths[-1])) + 1)
    marks = {10.0**decade / 8: link_text(10.0**decade / 8) for decade in decades}
    title = "Step time over bandwidth, both logarithmic (modelled)"
    here = advice.cluster.bandwidth
    return line_chart(title, bandwidths, _drawn(lines), marks=marks, base=advice.baseline, here=here)


def _what_if_part(found: WhatIfs, advice: Advice) -> Markup:
    """Sentences and charts of what would be if something were different."""
    factors = {factor: f"{factor:g}x" for factor in FACTORS}
    caps = sorted({choice.bucket_bytes for choice in found.recommendation.choices})
    # The baselines, and then those that the table begins with.
    order = [*BASELINES, *(one.name for one in advice.predictions if one.name not in BASELINES)]

    def chart(
        heading: str, places: Sequence[float], lines: Mapping[str, Sequence[Interval]], marks: Mapping[float, str]
    ) -> Markup:
        chosen = _drawn({name: lines[name] for name in order if name in lines})
        title = f"Step time, {heading}, both logarithmic (modelled)"
        drawn = line_chart(title, places, chosen, marks=marks, base=advice.baseline)
        return Markup("<h2>Step time, {} (modelled)</h2>{}").format(heading, drawn)

    parts = [
        Markup("<h2>What if (modelled)</h2>"),
        *(Markup("<p>{}.</p>").format(line) for line in found.lines()),
        chart("over the size of buckets", caps, found.recommendation.lines(),
              {cap: f"{cap / 2**20:g} MB" for cap in caps}),
        chart("if forward and backward pass were so many times as fast", FACTORS, found.compute, factors),
    ]  # fmt: skip
    for larger, lines in found.encoders.items():
        growth = "as many" if larger == 1 else f"{larger:g} times as many"
        sizes = f", and messages {growth} times as large" if larger else ""
        parts.append(chart(f"if encoders were so many times as fast{sizes}", FACTORS, lines, factors))
    return Markup("").join(parts)


def _drawn(lines: Mapping[str, Sequence[Interval]]) -> dict[str, Sequence[Interval]]:
    return dict(list(lines.items())[:_MOST_LINES])
