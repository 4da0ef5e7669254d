"""Schemes by name."""

import pytest

from taut.errors import ArgumentError
from taut.numerics import FORMATS, SCHEMES, get_scheme


@pytest.mark.parametrize(
    ("name", "weights", "activations"),
    [
        ("vsq-w4a4-v16", "vsq4-v16-s4", "vsq4-v16-s4"),
        ("vsq-w4a8-v16", "vsq4-v16-s4", "int8-channel"),
        ("vsq-w3a8-v16-s6", "vsq3-v16-s6", "int8-channel"),
        ("vsq-w4a16-v32", "vsq4-v32-s4", None),
        ("poc-w4a8", "int4-channel", "int8-channel"),
        ("poc-w4a4", "int4-channel", "int4-channel"),
        ("mxfp4", "mxfp4", None),
    ],
)
def test_what_a_name_stands_for(name: str, weights: str, activations: str | None) -> None:
    scheme = get_scheme(name)
    assert scheme.name == name
    assert scheme.weights.name == weights
    assert (scheme.activations.name if scheme.activations else None) == activations


def test_listed_schemes_are_found_and_every_format_is_a_scheme() -> None:
    assert all(get_scheme(name) is SCHEMES[name] for name in SCHEMES)
    assert all(get_scheme(name).weights is FORMATS[name] for name in FORMATS)


@pytest.mark.parametrize("name", ["vsq-w4a4", "vsq-w9a8-v16", "vsq-w4a8-v999", "poc-w4a9", "", None])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="scheme"):
        get_scheme(name)


def test_the_closest_scheme_is_suggested() -> None:
    with pytest.raises(ArgumentError, match="did you mean 'vsq-w4a4-v16'"):
        get_scheme("vsq-w4-a4-v16")
