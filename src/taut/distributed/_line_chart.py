"""Step times as lines over something that varies, both axes logarithmic, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from taut.stats import Interval

WIDTH, HEIGHT = 760, 420
STYLE = (
    "svg text{font:12px system-ui,sans-serif}svg{max-width:100%;height:auto}"
    ".grid{stroke:#e3e7eb}.here{stroke:#888;stroke-dasharray:3 3}.line{fill:none;stroke:#14477a;stroke-width:1.7}"
    ".base{stroke:#b3261e;stroke-width:2.4}"
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 14, 48
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4", "1 4", "14 3 3 3")


def line_chart(
    title: str,
    places: Sequence[float],
    lines: Mapping[str, Sequence[Interval]],
    *,
    marks: Mapping[float, str],
    base: str,
    here: float | None = None,
) -> Markup:
    """Seconds (up) over places (across).

    Args:
        title: for those who cannot see it.
        places: above 0, ascending.
        lines: seconds at each place, by name.
        marks: labels of places.
        base: the line that stands out.
        here: a place that is marked by a line of its own.
    """
    values = [one.estimate for line in lines.values() for one in line]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    left, right = math.log10(places[0]), math.log10(places[-1])

    def across(place: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (math.log10(place) - left) / (right - left)

    def up(seconds: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (math.log10(seconds) - low) / (high - low)

    bottom, end = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)]
    for place, text in marks.items():
        parts.append(
            Markup(
                '<path class="grid" d="M{0:.1f} {1}V{2}"/><text x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
            ).format(across(place), _TOP, bottom, bottom + 17, text)
        )
    for seconds in (step * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for step in (1, 3)):
        if low <= math.log10(seconds) <= high:
            parts.append(
                Markup(
                    '<path class="grid" d="M{0} {1:.1f}H{2}"/>'
                    '<text x="{3}" y="{4:.1f}" text-anchor="end">{5:g} ms</text>'
                ).format(_LEFT, up(seconds), end, _LEFT - 6, up(seconds) + 4, seconds * 1e3)
            )
    if here is not None and places[0] <= here <= places[-1]:
        parts.append(Markup('<path class="here" d="M{0:.1f} {1}V{2}"/>').format(across(here), _TOP, bottom))
    for number, (name, line) in enumerate(lines.items()):
        points = " ".join(
            f"{across(place):.1f},{up(one.estimate):.1f}" for place, one in zip(places, line, strict=True)
        )
        style, dash = ("line base", "") if name == base else ("line", _DASHES[number % len(_DASHES)])
        key = _TOP + 14 + 20 * number
        parts.append(
            Markup(
                '<polyline class="{0}" stroke-dasharray="{1}" points="{2}"/>'
                '<path class="{0}" stroke-dasharray="{1}" d="M{3} {4}h28"/><text x="{5}" y="{6}">{7}</text>'
            ).format(style, dash, points, end + 10, key, end + 44, key + 4, name)
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)
