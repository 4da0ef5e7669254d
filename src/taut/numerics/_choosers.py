"""The scale choosers by name, and which of them a format takes."""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Mapping

from taut.errors import ArgumentError
from taut.numerics._choice import Chooser
from taut.numerics._elements import IntegerElements
from taut.numerics._exact import keep_exact
from taut.numerics._float_scales import (
    choose_e4m3,
    choose_shared_exponent,
    search_e4m3,
    search_shared_exponent,
)
from taut.numerics._format import Format
from taut.numerics._ggml import choose_q4_0, choose_q4_k, search_q4_0
from taut.numerics._integer_scales import (
    choose_ceil,
    choose_closest,
    choose_joint,
    choose_requantise,
    choose_round,
    choose_search,
)
from taut.numerics._ranges import choose_entropy, choose_max, choose_mse, choose_percentile

CHOOSERS: Mapping[str, str] = types.MappingProxyType(
    {
        "max": "the largest magnitude of a vector (row, tensor) becomes the largest element, as standards have it",
        "percentile": "the 99.9th percentile of the magnitudes instead; percentile-99.99 and the like set another",
        "entropy": "the range of least relative entropy between the histograms before and after",
        "mse": "the range of least squared error",
        "round": "two levels, the order of the VS-Quant paper: scales rounded, elements against the unrounded scales",
        "requantise": "as round, but no scale is 0 and elements are taken against the rounded scales",
        "ceil": "scales rounded up, so that nothing saturates",
        "closest": "of that scale and the one below, the one of less squared error; what kernels do to activations",
        "search": "the scale of least squared error, vector by vector",
        "joint": "search under the coarse scale of least squared error, row by row",
        "compensate": "joint, then column by column: later weights make good the error at given moments of the inputs",
    }
)
"""Names and meanings of the scale choosers."""


def choosers_of(number_format: Format) -> dict[str, Chooser]:
    """The choosers that a format takes, by name, without `compensate`, which needs moments."""
    if number_format.layout == "blocks":
        return (
            {"search": choose_q4_k}
            if number_format.offset == "minimum"
            else {"max": choose_q4_0, "search": search_q4_0}
        )
    kind = number_format.scales.kind if number_format.scales else None
    if kind == "integer":
        choosers: dict[str, Chooser] = {"round": choose_round, "requantise": choose_requantise, "ceil": choose_ceil}
        choosers["closest"] = choose_closest
        choosers["search"] = keep_exact(choose_search)
        if not number_format.is_shared:
            choosers["joint"] = keep_exact(choose_joint)
        return choosers
    if kind == "e8m0":
        return {"max": choose_shared_exponent, "search": search_shared_exponent}
    if kind == "e4m3":
        return {"max": choose_e4m3, "search": search_e4m3}
    integer = isinstance(number_format.elements, IntegerElements)
    ranges: dict[str, Chooser] = {"max": choose_max, "mse": keep_exact(choose_mse) if integer else choose_mse}
    if kind is None:
        ranges["percentile"] = choose_percentile
        if integer and number_format.offset == "none":
            ranges["entropy"] = choose_entropy
    return ranges


def get_chooser(name: str, number_format: Format) -> Chooser:
    """The chooser of a name for a format.

    Raises:
        ArgumentError: there is none of that name, or it does not serve the format.
    """
    offered = choosers_of(number_format)
    if name in offered:
        return offered[name]
    percentile = re.fullmatch(r"percentile-(\d{1,3}(?:\.\d{1,9})?)", name) if isinstance(name, str) else None
    if percentile and "percentile" in offered and 0 < float(percentile[1]) <= 100:
        return functools.partial(choose_percentile, percentile=float(percentile[1]))
    close = difflib.get_close_matches(str(name), list(offered), 1)
    raise ArgumentError(
        "chooser",
        name,
        expected=f"for {number_format.name} one of {', '.join(offered)}",
        fix=f"did you mean {close[0]!r}?" if close and close[0] != name else None,
    )
