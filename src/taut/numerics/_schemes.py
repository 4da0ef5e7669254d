"""Schemes: the format of a layer's weights together with that of its activations."""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass

from taut.errors import ArgumentError
from taut.numerics._format import Format
from taut.numerics._registry import FORMATS, _find, get_format


@dataclass(frozen=True)
class Scheme:
    """How a layer is quantised.

    Attributes:
        name: as `get_scheme` takes it.
        title: one line for people.
        weights: the format of the weights.
        activations: the format of the inputs at run time, a row a token; None leaves them in floating point.
    """

    name: str
    title: str
    weights: Format
    activations: Format | None = None


_VECTOR = re.compile(r"vsq-w([2-8])a([2-8]|16)-v([1-9]\d{0,2})(?:-s([1-9]\d?))?", re.ASCII)
_CHANNEL = re.compile(r"poc-w([2-8])a([2-8]|16)", re.ASCII)
_LISTED = (
    *("vsq-w4a4-v16", "vsq-w4a8-v16", "vsq-w3a8-v16", "vsq-w4a16-v16"),
    *("poc-w8a8", "poc-w4a8", "poc-w4a4", "poc-w3a8"),
)


@functools.cache
def _find_scheme(name: str) -> Scheme | None:
    if match := _VECTOR.fullmatch(name):
        bits, inputs, vector, scale = match[1], match[2], match[3], match[4] or "4"
        weights = _find(f"vsq{bits}-v{vector}-s{scale}")
        # From 8 bits on the token's one scale is enough; below, activations need vectors as weights do.
        kind = None if inputs == "16" else "int8-channel" if inputs == "8" else f"vsq{inputs}-v{vector}-s{scale}"
        activations = None if kind is None else _find(kind)
        if weights is None:
            return None
        shown = "floating-point activations" if kind is None else f"{inputs}-bit activations"
        title = f"VS-Quant: {bits}-bit weights in vectors of {vector} with {scale}-bit scales, {shown}"
        return Scheme(name, title, weights, activations)
    if match := _CHANNEL.fullmatch(name):
        bits, inputs = match[1], match[2]
        activations = None if inputs == "16" else get_format(f"int{inputs}-channel")
        shown = "floating-point activations" if inputs == "16" else f"{inputs}-bit activations, one scale a token"
        return Scheme(
            name, f"{bits}-bit weights with one scale a channel, {shown}", get_format(f"int{bits}-channel"), activations
        )
    weights = _find(name)
    return None if weights is None else Scheme(name, f"weights only: {weights.title}", weights)


def get_scheme(name: str) -> Scheme:
    """The scheme of a name.

    Besides the listed names: `vsq-w{N}a{A}-v{V}` with `-s{M}` behind it for other than 4-bit scales, `poc-w{N}a{A}`
    (A is 2 to 8, or 16 for activations left in floating point), and any format's name for weights only.

    Args:
        name: e.g. `"vsq-w4a4-v16"`.

    Raises:
        ArgumentError: there is no such scheme; the closest match is named.
    """
    found = _find_scheme(name) if isinstance(name, str) else None
    if found is None:
        close = difflib.get_close_matches(str(name)[:60].lower(), [*SCHEMES, *FORMATS], 1, cutoff=0.4)
        raise ArgumentError(
            "scheme",
            name,
            expected="a scheme or format that `taut formats` lists, or vsq-w{N}a{A}-v{V}-s{M}",
            fix=f"did you mean {close[0]!r}?" if close else "run `taut formats`",
        )
    return found


SCHEMES: Mapping[str, Scheme] = types.MappingProxyType(
    {name: found for name in _LISTED if (found := _find_scheme(name)) is not None}
)
"""The listed schemes by name; `get_scheme` makes others."""
