"""The charts, as inline SVG that takes its colours from the page's style sheet.

Every number in a chart stands as text in a table beside it, and no series is told apart by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 360, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 42
_LARGEST_DECADES = 6.0  # a ratio out of a hostile file must not flatten the plot or overflow
_TICK_STEPS = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 7.0)


@dataclass(frozen=True)
class Point:
    """One candidate in the scatter: a modelled and a measured speed-up, the latter with its interval."""

    label: str
    predicted: float
    measured: float
    low: float | None
    high: float | None
    verdict: str


def bar(value: float | None, largest: float, style: str) -> Markup:
    """A horizontal bar, `value / largest` of its container wide; its figure stands beside it as text."""
    if value is None or largest <= 0:
        return Markup("")
    width = min(100.0, max(0.4, 100 * value / largest)) if value > 0 else 0.0
    return Markup(
        '<svg class="bar {}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<rect width="{:.2f}" height="10"/></svg>'
    ).format(style, width)


def scatter(points: Sequence[Point]) -> Markup:
    """Predicted (across) against measured (up) speed-up on log axes with the diagonal of a perfect model."""
    low, high = _span(points)
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def fraction(value: float) -> float:
        return min(1.0, max(0.0, (_log(value) - low) / (high - low)))

    def across(value: float) -> float:
        return _LEFT + plot_width * fraction(value)

    def up(value: float) -> float:
        return _TOP + plot_height * (1 - fraction(value))

    parts = [
        Markup(
            '<svg class="scatter" viewBox="0 0 {} {}" role="img" aria-labelledby="scatter-title scatter-description">'
            '<title id="scatter-title">Predicted against measured speed-up</title>'
            '<desc id="scatter-description">{} candidates on logarithmic axes; points on the diagonal were predicted '
            "rightly, points below it gained less than predicted. The table beside it holds the figures.</desc>"
        ).format(WIDTH, HEIGHT, len(points))
    ]
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for tick in _ticks(low, high):
        style = "unit" if tick == 1 else "grid"
        x, y = across(tick), up(tick)
        parts.append(
            Markup(
                '<path class="{}" d="M{:.1f} {}V{}M{} {:.1f}H{}"/>'
                '<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
                '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(
                style, x, _TOP, bottom, _LEFT, y, right, x, bottom + 15, f"{tick:g}×", _LEFT - 6, y + 4, f"{tick:g}×"
            )
        )
    parts.append(
        Markup(
            '<path class="diagonal" d="M{} {}L{} {}"/>'
            '<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">predicted speed-up (modelled)</text>'
            '<text class="axis" transform="translate(11 {:.1f}) rotate(-90)" text-anchor="middle">'
            "measured speed-up</text>"
        ).format(_LEFT, bottom, right, _TOP, _LEFT + plot_width / 2, HEIGHT - 8, _TOP + plot_height / 2)
    )
    places = [(across(point.predicted), up(point.measured)) for point in points]
    for point, (x, y) in zip(points, places, strict=True):
        parts.append(_interval(x, up(point.low or point.measured), up(point.high or point.measured)))
        parts.append(_marker(x, y, point.verdict))
    for point, (x, y) in zip(points, _label_places(places), strict=True):
        parts.append(
            Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(x, y, point.label)
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _log(value: float) -> float:
    return min(_LARGEST_DECADES, max(-_LARGEST_DECADES, math.log10(value)))


def _span(points: Sequence[Point]) -> tuple[float, float]:
    values = [
        _log(value)
        for point in points
        for value in (point.predicted, point.measured, point.low, point.high)
        if value is not None
    ]
    low, high = min([*values, 0.0]), max([*values, 0.0])
    margin = max(0.06 * (high - low), 0.02)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low) - 1, math.ceil(high) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in _TICK_STEPS]
    ticks += [0.9, 0.8, 1.1]
    shown: list[float] = []
    # Round numbers claim their room first; the rest fill what is left.
    for tick in sorted(
        ticks, key=lambda value: (value != 1, math.log10(value) % 1 > 1e-9, value not in (2, 0.5), value)
    ):
        place = math.log10(tick)
        if low <= place <= high and all(abs(place - math.log10(other)) > 0.11 * (high - low) for other in shown):
            shown.append(tick)
    return sorted(shown)


def _interval(x: float, y_low: float, y_high: float) -> Markup:
    return Markup('<path class="interval" d="M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h10M{3:.1f} {2:.1f}h10"/>').format(
        x, y_low, y_high, x - 5
    )


def _marker(x: float, y: float, verdict: str) -> Markup:
    if verdict == "faster":
        path = f"M{x:.1f} {y - 4.5:.1f}l4.5 7.5h-9z"
    elif verdict == "slower":
        path = f"M{x:.1f} {y + 4.5:.1f}l4.5 -7.5h-9z"
    else:
        path = f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"
    return Markup('<path class="marker {}" d="{}"/>').format(verdict.replace(" ", "-"), path)


def _label_places(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A place beside each point, the least crowded of eight, for a label about 14 by 11 wide."""
    offsets = [(11, 4), (-11, 4), (11, -7), (-11, -7), (11, 15), (-11, 15), (20, 4), (-20, 4)]
    taken = [(x, y) for x, y in points]
    places: list[tuple[float, float]] = []
    for x, y in points:

        def crowding(offset: tuple[int, int], x: float = x, y: float = y) -> float:
            centre_x, centre_y = x + offset[0], y + offset[1] - 4
            outside = not (_LEFT + 6 < centre_x < WIDTH - _RIGHT - 6 and _TOP + 5 < centre_y < HEIGHT - _BOTTOM - 5)
            overlap = sum(
                max(0.0, 14 - abs(centre_x - other_x)) * max(0.0, 11 - abs(centre_y - other_y))
                for other_x, other_y in taken
            )
            return overlap + 1000 * outside

        offset = min(offsets, key=crowding)
        place = (x + offset[0], y + offset[1])
        places.append(place)
        taken.append((place[0], place[1] - 4))
    return places
