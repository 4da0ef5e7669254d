"""The formats by name."""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Callable, Mapping

from taut.errors import ArgumentError
from taut.numerics._elements import (
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    FloatElements,
    IntegerElements,
    signed,
    unsigned,
)
from taut.numerics._format import Coarse, Format, Scales

_ROW, _TENSOR = Coarse("row"), Coarse("tensor")


def _two_level(match: re.Match[str]) -> Format | None:
    bits, vector, scale_bits = int(match["bits"]), int(match["vector"]), int(match["scale"])
    tensor = match["tensor"] is not None
    if not (2 <= bits <= 8 and 2 <= vector <= 256 and 2 <= scale_bits <= 10):
        return None
    coarse = "tensor" if tensor else "row"
    return Format(
        match[0],
        f"VS-Quant, {bits}-bit elements, a {scale_bits}-bit scale each {vector} elements, float32 gamma a {coarse}",
        signed(bits),
        vector,
        Scales("integer", scale_bits),
        _TENSOR if tensor else _ROW,
        chooser="search" if tensor else "joint",
        dynamic_chooser="closest",
    )


def _one_level(match: re.Match[str]) -> Format | None:
    bits, vector, width = int(match["bits"]), int(match["vector"]), match["width"]
    if not (2 <= bits <= 8 and 2 <= vector <= 256):
        return None
    title = f"VS-Quant, {bits}-bit elements, a float{width} scale each {vector} elements"
    scales = Scales.of("float16" if width == "16" else "float32")
    return Format(match[0], title, signed(bits), vector, scales, chooser="mse")


def _integer(match: re.Match[str]) -> Format | None:
    bits, per = int(match["bits"]), match["per"]
    if not 2 <= bits <= 8:
        return None
    coarse = _TENSOR if per == "tensor" else _ROW
    where = "tensor" if per == "tensor" else "row"
    if match["kind"] == "uint":
        title = f"{bits}-bit integers with a zero point, one float32 scale a {where}"
        return Format(match[0], title, unsigned(bits), None, None, coarse, "zero_point", chooser="mse")
    title = f"{bits}-bit integers, symmetric, one float32 scale a {where}"
    return Format(match[0], title, signed(bits), None, None, coarse, chooser="mse")


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], Format | None]], ...] = (
    (r"vsq(?P<bits>\d)-v(?P<vector>[1-9]\d{0,2})-s(?P<scale>[1-9]\d?)(?P<tensor>-tensor)?", _two_level),
    (r"vsq(?P<bits>\d)-v(?P<vector>[1-9]\d{0,2})-f(?P<width>16|32)", _one_level),
    (r"(?P<kind>u?int)(?P<bits>\d)-(?P<per>channel|tensor)", _integer),
)


def _microscaling(name: str, elements: FloatElements | IntegerElements) -> Format:
    title = f"OCP MX, {elements.bits}-bit elements, power-of-two scale a vector of 32"
    return Format(name, title, elements, 32, Scales.of("e8m0"))


_FIXED = (
    Format("fp8-e4m3-channel", "8-bit floats E4M3, one float32 scale a row", E4M3, coarse=_ROW),
    Format("fp8-e5m2-channel", "8-bit floats E5M2, one float32 scale a row", E5M2, coarse=_ROW),
    Format(
        "q4_0",
        "ggml Q4_0, blocks of 32, one float16 scale",
        IntegerElements(4, -8, 7, 8),
        32,
        Scales.of("float16"),
        layout="blocks",
    ),
    Format(
        "q4_k",
        "ggml Q4_K, vectors of 32 with 6-bit scales and minima, float16 coarse ones each 256",
        unsigned(4),
        32,
        Scales("integer", 6),
        Coarse("block", 16, 8),
        "minimum",
        chooser="search",
        dynamic_chooser="search",
        layout="blocks",
    ),
    _microscaling("mxfp4", E2M1),
    _microscaling("mxfp6-e2m3", E2M3),
    _microscaling("mxfp6-e3m2", E3M2),
    _microscaling("mxfp8-e4m3", E4M3),
    _microscaling("mxfp8-e5m2", E5M2),
    _microscaling("mxint8", IntegerElements(8, -127, 127, fraction_bits=6)),
    Format(
        "nvfp4",
        "NVFP4, E2M1 elements, E4M3 scale a vector of 16, float32 scale a tensor",
        E2M1,
        16,
        Scales.of("e4m3"),
        _TENSOR,
    ),
)
_FIXED_BY_NAME = {fixed.name: fixed for fixed in _FIXED}

_LISTED = (
    *(f"int{bits}-channel" for bits in (8, 6, 5, 4, 3, 2)),
    *(f"uint{bits}-channel" for bits in (8, 4)),
    *("int8-tensor", "uint8-tensor"),
    *("vsq4-v16-s4", "vsq4-v16-s6", "vsq4-v32-s4", "vsq4-v64-s6", "vsq3-v16-s4", "vsq3-v16-s6"),
    *("vsq4-v16-s4-tensor", "vsq4-v16-f16", "vsq4-v16-f32"),
    *_FIXED_BY_NAME,
)


@functools.cache
def _find(name: str) -> Format | None:
    if name in _FIXED_BY_NAME:
        return _FIXED_BY_NAME[name]
    for pattern, make in _PATTERNS:
        match = re.fullmatch(pattern, name, re.ASCII)
        if match:
            return make(match)
    return None


def get_format(name: str) -> Format:
    """The format of a name.

    Besides the listed names: `vsq{N}-v{V}-s{M}` (N 2 to 8 bits an element, V 2 to 256 elements a vector, M 2 to 10 bits
    a scale; `-tensor` behind it for one gamma a tensor), `vsq{N}-v{V}-f16` and `-f32`, and with `int{N}` or `uint{N}`
    in front `-channel` and `-tensor`.

    Args:
        name: e.g. `"vsq4-v16-s4"`.

    Raises:
        ArgumentError: there is no such format; the closest match is named.
    """
    found = _find(name) if isinstance(name, str) else None
    if found is None:
        close = difflib.get_close_matches(str(name)[:60].lower(), list(FORMATS), 1, cutoff=0.4)
        raise ArgumentError(
            "format",
            name,
            expected="a format that `taut formats` lists, or vsq{2..8}-v{2..256}-s{2..10} and its kin",
            fix=f"did you mean {close[0]!r}?" if close else "run `taut formats`",
        )
    return found


FORMATS: Mapping[str, Format] = types.MappingProxyType(
    {name: found for name in _LISTED if (found := _find(name)) is not None}
)
"""The listed formats by name; `get_format` makes others."""
