from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import comparison

from taut.optimize._report import Interval, _format


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (287.4, "287 s"),
        (0.0123, "12.3 ms"),
        (0.00099996, "1.00 ms"),
        (2.2e-4, "220 µs"),
        (3e-9, "3.00 ns"),
        (1.5e-11, "0.0150 ns"),
    ],
)
def test_seconds_have_three_digits_and_a_unit(value: float | None, text: str):
    assert _format.seconds(value) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (999, "999 B"), (90_852_864, "90.9 MB"), (2**40, "1.10 TB")])
def test_sizes_have_decimal_units(value: int | None, text: str):
    assert _format.size(value) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.86, 1.98, "1.86× to 1.98×"),
        (1.002, 1.011, "1.002× to 1.011×"),
        (0.988, 1.5, "0.988× to 1.500×"),
        (1e-9, 2e9, "1.00e−09× to 2.00e+09×"),
    ],
)
def test_an_interval_near_one_shows_on_which_side_it_lies(low: float, high: float, text: str):
    assert _format.speedup_interval(comparison(1.0, low, high, "faster")) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.0035, 0.0006, "−0.0035 to +0.0006"),
        (-0.2, 0.0, "−0.20 to 0"),
        (None, 12.0, "unknown to +12"),
        (0.0, 0.0, "0 to 0"),
    ],
)
def test_changes_carry_their_sign(low: float | None, high: float | None, text: str):
    assert _format.signed_interval(Interval(low=low, high=high)) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_any_duration_has_a_short_text(value: float):
    assert len(_format.seconds(value)) < 16
    assert len(_format.ratio(value)) < 16


@given(st.floats(1e-4, 1e5) | st.floats(-1e5, -1e-4))
def test_significant_digits_lose_less_than_half_a_unit_of_the_last(value: float):
    shown = float(_format.significant(value, 3).replace(_format.MINUS, "-"))
    assert math.isclose(shown, value, rel_tol=0.0051)


@given(st.text(), st.integers(1, 50))
def test_clean_text_is_bounded_printable_and_otherwise_unchanged(text: str, limit: int):
    shown = _format.clean(text, limit)
    assert len(shown) <= limit
    assert all(character.isprintable() or character.isspace() for character in shown)
    if text.isascii() and text.isprintable() and len(text) <= limit:
        assert shown == text


def test_nested_settings_become_dotted_rows():
    nested = {"isa": ["avx2", "vnni"], "versions": {"torch": "2.13"}, "turbo": None, "runs": [{"seconds": 0.5}]}
    assert _format.flatten(nested) == [
        ("isa", "avx2, vnni"),
        ("versions.torch", "2.13"),
        ("turbo", "–"),
        ("runs.0.seconds", "0.5"),
    ]
