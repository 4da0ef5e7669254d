"""From numbers to codes."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.errors import ArgumentError
from taut.numerics._choice import Chooser, Problem, element_codes
from taut.numerics._choosers import get_chooser
from taut.numerics._compensate import compensating
from taut.numerics._encoded import Encoded, from_parts
from taut.numerics._format import Format, Geometry
from taut.numerics._layout import Parts
from taut.numerics._registry import get_format

CHUNK = 1 << 18  # elements; what is at work at once stays in the second-level cache
_COMPENSATING_CHUNK = 1 << 24  # column after column of all rows: fewer, longer steps
_LIMIT = 2.0**126  # so that nothing that is computed on the way overflows


def encode(
    x: Tensor,
    format: Format | str,  # noqa: A002 - the word that users look for
    *,
    chooser: str | None = None,
    importance: Tensor | None = None,
    moments: Tensor | None = None,
) -> Encoded:
    """Encode a tensor along its last dimension; dimension 0 is the row.

    Rows are independent of each other unless the format has a scale for the whole tensor. Where a format has a float32
    scale, rows (tensors) whose largest magnitude is below 2**-100 become zeros.

    Args:
        x: `(rows, ..., K)`, or `(K,)` for one row; floating point, finite, any device.
        format: a format or its name.
        chooser: how scales are chosen, a name of `CHOOSERS`; by default the best that the format has.
        importance: `(K,)` float, not negative: how much the squared errors at each input feature count, for the
            choosers that minimise them; e.g. the mean square of the activations.
        moments: `(columns, columns)`, columns the product of the dimensions behind the first: the mean of x x^T over
            the inputs x of the layer, for the chooser `"compensate"` alone.

    Returns:
        The encoded tensor, in the memory of `x`'s device.

    Raises:
        ArgumentError: an unknown format or chooser, a NaN or infinity, a magnitude of 2**126 or more, one that float16
            scales cannot reach, a dtype or shape that does not fit.
    """
    number_format = format if isinstance(format, Format) else get_format(format)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError("x", kind, expected="a floating-point tensor", fix="pass the weight itself")
    sizes = Geometry.of(tuple(x.shape), number_format)
    name, chunk = number_format.chooser if chooser is None else chooser, CHUNK
    if name == "compensate":
        choose, chunk = compensating(number_format, moments, sizes, x.device), _COMPENSATING_CHUNK
    elif moments is not None:
        raise ArgumentError("moments", f"with chooser {name!r}", expected="chooser='compensate'")
    else:
        choose = get_chooser(name, number_format)
    rows = x.detach().to(torch.float32).reshape(sizes.rows, sizes.columns)
    _check_values(rows)
    weights = _weights(importance, x, sizes)
    chunks = [rows]
    if rows.numel() and not number_format.is_shared:
        chunks = rows.split(max(1, chunk // sizes.columns))
    parts = Parts.join([encode_rows(some, number_format, sizes, choose, weights) for some in chunks])
    for half in (parts.scales, parts.gammas, parts.minimum_gammas):
        if half is not None and half.dtype == torch.float16 and not bool(torch.isfinite(half).all()):
            raise ArgumentError(
                "x",
                f"magnitudes up to {float(rows.abs().amax()):.3g}",
                expected=f"numbers that the float16 scales of {number_format.name} reach",
                fix="choose a format with float32 scales, e.g. vsq4-v16-s4",
            )
    return from_parts(number_format, tuple(x.shape), parts)


def encode_rows(rows: Tensor, number_format: Format, sizes: Geometry, choose: Chooser, weights: Tensor | None) -> Parts:
    """Codes and scales of some rows.

    Args:
        rows: `(rows, columns)` float32.
        number_format: the number format.
        sizes: the cut; its `rows` may be more than these.
        choose: the scale chooser.
        weights: `(1, vectors, elements)` or None.
    """
    problem = Problem(sizes.to_blocks(rows), number_format, weights)
    choice = choose(problem)
    codes = element_codes(problem, choice)
    codes = sizes.to_rows(codes) if number_format.layout == "planes" else codes.flatten(1)
    names = ("scales", "gammas", "zero_points", "minima", "minimum_gammas")
    return Parts(codes, *(_flat(getattr(choice, name)) for name in names))


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.flatten(1)


def _check_values(rows: Tensor) -> None:
    if not rows.numel():
        return
    largest = float(rows.abs().amax())  # NaN if there is one
    if not largest < float("inf"):
        count = int((~torch.isfinite(rows)).sum())
        raise ArgumentError(
            "x", f"{count} of {rows.numel()} values NaN or infinite", expected="finite", fix="check the checkpoint"
        )
    if largest >= _LIMIT:
        raise ArgumentError("x", largest, expected="magnitudes below 2**126", fix="check the checkpoint")


def _weights(importance: Tensor | None, x: Tensor, sizes: Geometry) -> Tensor | None:
    if importance is None:
        return None
    length = x.shape[-1]
    if not isinstance(importance, Tensor) or importance.shape != (length,):
        shown = tuple(importance.shape) if isinstance(importance, Tensor) else type(importance).__name__
        raise ArgumentError("importance", shown, expected=f"a tensor of shape ({length},), one entry an input feature")
    values = importance.detach().to(device=x.device, dtype=torch.float32)
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ArgumentError("importance", "a negative, NaN or infinite entry", expected="finite entries, 0 or more")
    row = values.repeat(sizes.columns // length if length else 0)
    return sizes.to_blocks(row.unsqueeze(0))
