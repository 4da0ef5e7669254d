"""Advice as one self-contained page: a chart over bandwidths and the table of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from taut.distributed._advise import Advice
from taut.stats import Interval

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 14, 48
_MOST_LINES = 8
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4", "1 4", "14 3 3 3")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1c2733}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #d5dbe1;"
    "text-align:right}td:first-child,th:first-child{text-align:left}svg text{font:12px system-ui,sans-serif}"
    ".grid{stroke:#e3e7eb}.here{stroke:#888;stroke-dasharray:3 3}.line{fill:none;stroke:#14477a;stroke-width:1.7}"
    ".base{stroke:#b3261e;stroke-width:2.4}svg{max-width:100%;height:auto}"
)


def render_advice(advice: Advice, bandwidths: Sequence[float], lines: Mapping[str, Sequence[Interval]]) -> str:
    """The page, with no script and no request to anywhere.

    Args:
        advice: for the job as it is.
        bandwidths: bytes per second, ascending.
        lines: step times over them, by compressor; the first eight are drawn.
    """
    shown = dict(list(lines.items())[:_MOST_LINES])
    rows = Markup("").join(
        Markup("<tr><td>{}</td><td>{}</td><td>{:.1f}</td><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            one.name,
            milliseconds(one.seconds),
            one.sent / 1e6,
            ratio(one.speedup[advice.baseline]),
            one.verdict if one.name != advice.baseline else "baseline",
            bandwidth_text(one.crossover),
        )
        for one in advice.predictions
    )
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Compression advice: {}</title>'
        "<style>{}</style></head><body><h1>{}</h1><p><strong>{}</strong></p>{}"
        "<p>All figures are modelled from measured costs of links and encoders; intervals hold 95 % of what the "
        "measurements leave open. They say how long a step takes, not how many steps an accuracy takes.</p>{}"
        "<table><thead><tr><th>compressor</th><th>step, ms</th><th>MB sent a rank</th><th>speed-up over {}</th>"
        "<th>verdict</th><th>pays below</th></tr></thead><tbody>{}</tbody></table></body></html>"
    ).format(
        advice.workload,
        Markup(_STYLE),
        f"{advice.workload} on {advice.cluster.ranks} workers, {link_text(advice.cluster.bandwidth)}",
        advice.answer,
        Markup("").join(Markup("<p>The profile is doubtful: {}.</p>").format(doubt) for doubt in advice.doubts),
        _chart(bandwidths, shown, advice),
        advice.baseline,
        rows,
    )


def milliseconds(one: Interval) -> str:
    """An interval of seconds in milliseconds."""
    return f"{one.estimate * 1e3:.1f} [{one.low * 1e3:.1f}, {one.high * 1e3:.1f}]"


def ratio(one: Interval) -> str:
    """An interval of speed-ups."""
    return f"{one.estimate:.2f}x [{one.low:.2f}, {one.high:.2f}]"


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


def _chart(bandwidths: Sequence[float], lines: Mapping[str, Sequence[Interval]], advice: Advice) -> Markup:
    """Step time (up) over bandwidth (across), both logarithmic."""
    values = [one.estimate for line in lines.values() for one in line]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    left, right = math.log10(bandwidths[0]), math.log10(bandwidths[-1])

    def across(bandwidth: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (math.log10(bandwidth) - left) / (right - left)

    def up(seconds: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (math.log10(seconds) - low) / (high - low)

    parts = [
        Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-label="Step time over bandwidth, both logarithmic (modelled)">'
        ).format(WIDTH, HEIGHT)
    ]
    bottom, end = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for decade in range(math.ceil(left + math.log10(8)), math.floor(right + math.log10(8)) + 1):
        x = across(10.0**decade / 8)
        parts.append(
            Markup(
                '<path class="grid" d="M{0:.1f} {1}V{2}"/><text x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
            ).format(x, _TOP, bottom, bottom + 17, link_text(10.0**decade / 8))
        )
    for seconds in (step * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for step in (1, 3)):
        if low <= math.log10(seconds) <= high:
            parts.append(
                Markup(
                    '<path class="grid" d="M{0} {1:.1f}H{2}"/>'
                    '<text x="{3}" y="{4:.1f}" text-anchor="end">{5:g} ms</text>'
                ).format(_LEFT, up(seconds), end, _LEFT - 6, up(seconds) + 4, seconds * 1e3)
            )
    here = advice.cluster.bandwidth
    if here is not None and bandwidths[0] <= here <= bandwidths[-1]:
        parts.append(Markup('<path class="here" d="M{0:.1f} {1}V{2}"/>').format(across(here), _TOP, bottom))
    for place, (name, line) in enumerate(lines.items()):
        points = " ".join(
            f"{across(bandwidth):.1f},{up(one.estimate):.1f}" for bandwidth, one in zip(bandwidths, line, strict=True)
        )
        style, dash = ("line base", "") if name == advice.baseline else ("line", _DASHES[place % len(_DASHES)])
        key = _TOP + 14 + 20 * place
        parts.append(
            Markup(
                '<polyline class="{0}" stroke-dasharray="{1}" points="{2}"/>'
                '<path class="{0}" stroke-dasharray="{1}" d="M{3} {4}h28"/><text x="{5}" y="{6}">{7}</text>'
            ).format(style, dash, points, end + 10, key, end + 44, key + 4, name)
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)
