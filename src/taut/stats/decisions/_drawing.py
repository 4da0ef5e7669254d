"""The picture of a comparison: its interval, and the scores behind it. SVG that needs nothing else."""

from __future__ import annotations

from html import escape

import numpy as np

from taut.stats.decisions._outperformance import Outperformance

_WIDTH, _LEFT, _RIGHT = 720, 96, 24
# Dots of one system: more of them cover each other, and make a page that no browser opens.
_MOST_DOTS = 500
_STYLE = """
svg.comparison { --ink: #1b1f24; --muted: #545d68; --line: #d3d8de; --a: #1f6fc4; --b: #b35900; --page: #fff;
  background: var(--page); font: 13px system-ui, sans-serif; max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { svg.comparison { --ink: #e6e8eb; --muted: #a6afba; --line: #363c44; --a: #5fa4f2;
  --b: #f0a04b; --page: #14171b; } }
.comparison text { fill: var(--ink); } .comparison .muted { fill: var(--muted); }
.comparison line { stroke: var(--line); } .comparison .pair { stroke-width: 1; }
.comparison .limit { stroke: var(--muted); stroke-dasharray: 4 3; }
.comparison .interval { stroke: var(--ink); stroke-width: 4; }
.comparison .estimate { fill: var(--ink); } .comparison .a { fill: var(--a); } .comparison .b { fill: var(--b); }
"""
_PAGE_STYLE = """
body { margin: 0 auto; max-width: 48rem; padding: 1.5rem 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color-scheme: light dark; }
td { padding: .2rem 1.2rem .2rem 0; vertical-align: top; } td:first-child { opacity: .75; }
"""


def draw_comparison(found: Outperformance, a: np.ndarray, b: np.ndarray, names: tuple[str, str], metric: str) -> str:
    """A self-contained SVG picture of a comparison.

    Args:
        found: the outcome.
        a: shape (n,), scores of A.
        b: shape (m,), scores of B, in A's order if paired.
        names: of both systems.
        metric: what the scores are.
    """
    low, high = found.interval.low, found.interval.high
    title = f"{names[0]} (A) against {names[1]} (B): {found.verdict}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="comparison" viewBox="0 0 {_WIDTH} 330" width="{_WIDTH}" '
        f'height="330" role="img"><title>{escape(title)}</title><desc>{escape(found.summary())}</desc>'
        f"<style>{_STYLE}</style>",
        _text(_LEFT, 24, title, ""),
        _text(_LEFT, 44, f"P(A>B) = {found.estimate:.3f} [{low:.3f}, {high:.3f}]", "muted"),
        _line(_across(0), 90, _across(1), 90),
    ]
    for value, label in ((0, "0"), (1 - found.gamma, ""), (0.5, "0.5"), (found.gamma, "gamma"), (1, "1")):
        parts.append(_line(_across(value), 68, _across(value), 112, "" if value in (0, 1) else "limit"))
        parts.append(_text(_across(value), 128, label, "muted", "middle"))
    parts.append(_line(_across(low), 90, _across(high), 90, "interval"))
    parts.append(_dot(_across(found.estimate), 90, "estimate", 6))
    parts += _strip(found, a, b, names, metric)
    return "".join(parts) + "</svg>\n"


def comparison_page(
    found: Outperformance, picture: str, names: tuple[str, str], facts: list[tuple[str, str]], advice: list[str]
) -> str:
    """A self-contained HTML page with the picture, figures and advice of a comparison."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts)
    lines = "".join(f"<p>{escape(line)}</p>" for line in advice)
    heading = escape(f"{names[0]} against {names[1]}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{_PAGE_STYLE}</style></head><body><h1>{heading}</h1>"
        f"<p><strong>{escape(found.verdict)}</strong>: {escape(found.reason)}.</p>{picture}"
        f"<table>{rows}</table>{lines}</body></html>\n"
    )


def _strip(found: Outperformance, a: np.ndarray, b: np.ndarray, names: tuple[str, str], metric: str) -> list[str]:
    """One dot a run, and a line between the runs of a pair; of very many runs some, evenly by rank."""
    least, most = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    # Divided before they are subtracted: the span of two large numbers may overflow.
    span = (most / 2 - least / 2) or 0.5

    def place(value: float) -> float:
        return _across((float(value) / 2 - least / 2) / span)

    parts = [_text(12, 194, _short(names[0]), ""), _text(12, 274, _short(names[1]), "")]
    if max(len(a), len(b)) > _MOST_DOTS:
        whole = f"{len(a):,}" if len(a) == len(b) else f"{len(a):,} and {len(b):,}"
        what = "pairs, evenly by rank of their difference" if found.paired else "runs, evenly by rank"
        parts.append(_text(_across(0.5), 160, f"drawn: at most {_MOST_DOTS} of {whole} {what}", "muted", "middle"))
    if found.paired:
        shown = _spread(a / 2 - b / 2)
        a, b = a[shown], b[shown]
        parts += [_line(place(x), 190, place(y), 270, "pair") for x, y in zip(a, b, strict=True)]
    else:
        a, b = a[_spread(a)], b[_spread(b)]
    parts += [_dot(place(value), 190, "a", 4) for value in a] + [_dot(place(value), 270, "b", 4) for value in b]
    parts += [
        _text(_across(0), 310, f"{least:.5g}", "muted"),
        _text(_across(0.5), 310, metric, "muted", "middle"),
        _text(_across(1), 310, f"{most:.5g}", "muted", "end"),
    ]
    return parts


def _spread(values: np.ndarray) -> np.ndarray:
    """Where those values stand that are drawn: all, or as many as may be, evenly by rank with both ends."""
    if len(values) <= _MOST_DOTS:
        return np.arange(len(values))
    return np.argsort(values, kind="stable")[np.linspace(0, len(values) - 1, _MOST_DOTS).round().astype(int)]


def _across(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _short(name: str) -> str:
    return name if len(name) <= 11 else name[:10] + "…"


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: int, x2: float, y2: int, style: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" class="{style}"/>'


def _dot(x: float, y: int, style: str, radius: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y}" r="{radius}" class="{style}" fill-opacity="0.75"/>'
