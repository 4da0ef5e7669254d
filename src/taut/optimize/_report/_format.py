"""Numbers and untrusted text as the report prints them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from ._schema import Comparison, Interval

MINUS = "−"
NOTHING = "–"
_SPACE = "\u00a0"  # a figure and its unit stay on one line


def seconds(value: float | None) -> str:
    """A duration with three significant digits and its unit."""
    if value is None:
        return NOTHING
    if value == 0:
        return f"0{_SPACE}s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if value >= factor * 0.9995:
            return f"{significant(value / factor)}{_SPACE}{unit}"
    return f"{significant(value / 1e-9)}{_SPACE}ns"


def significant(value: float, digits: int = 3) -> str:
    """`value` to a number of significant digits, in plain notation where that stays short."""
    if value == 0:
        return "0"
    if math.isinf(value):  # a quotient of finite figures can still overflow
        return "∞" if value > 0 else f"{MINUS}∞"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])  # after rounding: 0.9996 counts as 1.00
    plain = -5 <= exponent < 6
    text = f"{value:.{max(0, digits - 1 - exponent)}f}" if plain else scientific
    return text.replace("-", MINUS)


def count(value: int | None) -> str:
    """A count in thousands, millions and so on: 22.7 M."""
    if value is None:
        return NOTHING
    for factor, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if value >= factor:
            return f"{significant(value / factor)}{_SPACE}{unit}"
    return f"{value:,}".replace(",", "\u202f")


def size(value: int | None) -> str:
    """Bytes with a decimal unit: 90.9 MB."""
    if value is None:
        return NOTHING
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if value >= factor:
            return f"{significant(value / factor)}{_SPACE}{unit}"
    return f"{value}{_SPACE}B"


def decimal(value: float | None) -> str:
    """A figure with two decimals."""
    return NOTHING if value is None else f"{value:.2f}".replace("-", MINUS) if abs(value) < 1e6 else significant(value)


def error(value: float | None) -> str:
    """A relative error, to two digits."""
    return NOTHING if value is None else significant(value, 2)


def _ratio_decimals(comparison: Comparison) -> int:
    # A narrow interval near 1 would print as "1.00 to 1.01" and seem to touch what it excludes.
    low, high = comparison.low, comparison.high
    narrow = low is not None and high is not None and high - low < 0.03
    near = any(bound is not None and abs(bound - 1) < 0.02 for bound in (low, high))
    return 3 if narrow or near else 2


def ratio(value: float, decimals: int = 2) -> str:
    """A speed-up: 1.84×."""
    shown = f"{value:.{decimals}f}" if 0.1 <= value < 1000 else significant(value, 3)
    return f"{shown}×"


def speedup(comparison: Comparison) -> str:
    """The measured ratio with as many decimals as its interval deserves."""
    return ratio(comparison.ratio, _ratio_decimals(comparison))


def speedup_interval(comparison: Comparison) -> str:
    """The bounds of the measured ratio: 1.79× to 1.90×."""
    decimals = _ratio_decimals(comparison)
    if comparison.low is None and comparison.high is None:
        return "too few pairs to say"
    low = "unknown" if comparison.low is None else ratio(comparison.low, decimals)
    high = "unknown" if comparison.high is None else ratio(comparison.high, decimals)
    return f"{low} to {high}"


def percent(value: float, digits: int = 3) -> str:
    """A fraction as a percentage, with no digits that say nothing."""
    shown = f"{100 * value:.{digits}g}"
    return f"{shown.replace('-', MINUS)}{_SPACE}%"


def quality(value: float | None) -> str:
    """A metric's value."""
    return NOTHING if value is None else significant(value, 4)


def signed_interval(interval: Interval) -> str:
    """The bounds of a change with their signs, to two digits of the larger: −0.0031 to +0.0012."""
    bounds = [bound for bound in (interval.low, interval.high) if bound is not None]
    largest = max((abs(bound) for bound in bounds), default=0.0)
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0

    def shown(bound: float | None) -> str:
        if bound is None:
            return "unknown"
        if bound == 0:
            return "0"
        text = f"{bound:+.{max(0, 1 - exponent)}f}" if -6 <= exponent < 6 else f"{bound:+.1e}"
        return text.replace("-", MINUS)

    return f"{shown(interval.low)} to {shown(interval.high)}"


def clean(text: str, limit: int) -> str:
    """`text` with control and direction-changing characters made visible, cut to `limit` characters."""
    shown = "".join(
        character if character == "\n" or unicodedata.category(character) not in _UNSAFE else "\ufffd"
        for character in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def scalar(value: JsonValue) -> str:
    """One JSON value on one line."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", MINUS, 1)
    return str(value)


def flatten(value: Mapping[str, JsonValue], prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON as (dotted name, text) rows; lists of scalars become one comma-separated row."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            rows += flatten(item, f"{name}.")
        elif isinstance(item, Sequence) and not isinstance(item, str):
            if any(isinstance(part, Mapping | list) for part in item):
                rows += flatten({str(index): part for index, part in enumerate(item)}, f"{name}.")
            else:
                rows.append((name, ", ".join(scalar(part) for part in item)))
        else:
            rows.append((name, scalar(item)))
    return rows


def options(value: Mapping[str, JsonValue]) -> str:
    """Options of a pass on one line: symmetric=yes, group=32."""
    return ", ".join(f"{name}={text}" for name, text in flatten(value))
