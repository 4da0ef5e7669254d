"""Quantisation of activations at run time, by the float32 operations of taut's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch

from taut.export._reductions import reduce
from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Writer
from taut.numerics import Format, IntegerElements, get_format

_SMALLEST = 2.0**-100  # below it a row counts as zero
_FLOAT = torch.float32


def quantise_whole(w: Writer, source: str, axes: Sequence[int] | None, highest: int) -> tuple[str, str]:
    """Whole numbers (as float32) of magnitude up to `highest`, and the scales that restore the values.

    Args:
        w: the writer.
        source: float32 values.
        axes: the dimensions that share a scale; None for all of them.
        highest: the largest magnitude maps to it.
    """
    inverse, scale = _range(w, source, axes, float(highest))
    scaled = w.emit("Mul", source, inverse)
    return w.emit("Round", scaled), w.emit("Add", scale, _poison(w, scaled, axes))


def quantise_in_vectors(
    w: Writer, source: str, x: Value, *, vector: int, highest: int, highest_scale: int, shared: bool = False
) -> tuple[str, str]:
    """Products of code and integer scale (as float32), and the coarse scales that restore the values.

    A vector's scale is rounded up, or one less where that gives the smaller squared error.

    Args:
        w: the writer.
        source: the float32 values of `x`.
        x: the value; its last dimension is cut into vectors.
        vector: elements a vector; the last one may be shorter.
        highest: the largest code.
        highest_scale: the largest scale.
        shared: whether all rows share one coarse scale.
    """
    length = x.shape[-1]
    if not isinstance(length, int):
        unsupported(w.node, "the size of the dimension with the vectors depends on the input")
    axes = None if shared else [-1]
    inverse, gamma = _range(w, source, axes, float(highest * highest_scale))
    missing = -length % vector
    if missing:
        source = w.emit("Pad", source, w.integers([0, missing]), None, w.integers([x.rank - 1]))
    blocks = w.emit("Reshape", source, w.integers([*[0] * (x.rank - 1), -1, vector]))
    inverse = w.emit("Unsqueeze", inverse, w.integers([-1]))
    largest = reduce(w, "ReduceMax", w.emit("Abs", blocks), [-1], keep=True)
    ratio = w.emit("Mul", w.emit("Mul", largest, inverse), w.number(1 / highest, _FLOAT))
    one = w.number(1.0, _FLOAT)
    above = w.emit("Clip", w.emit("Ceil", ratio), one, w.number(float(highest_scale), _FLOAT))
    below = w.emit("Max", w.emit("Sub", above, one), one)
    in_steps = w.emit("Mul", blocks, inverse)
    (upper, upper_error), (lower, lower_error) = (
        _under_scales(w, blocks, in_steps, inverse, scales, vector, float(highest)) for scales in (above, below)
    )
    products = w.emit("Where", w.emit("Less", lower_error, upper_error), lower, upper)
    flat = w.emit("Reshape", products, w.integers([*[0] * (x.rank - 1), -1]))
    if missing:
        flat = w.emit("Slice", flat, w.integers([0]), w.integers([length]), w.integers([x.rank - 1]))
    poison = w.emit("Squeeze", _poison(w, in_steps, [-2, -1]), w.integers([-1]))
    return flat, w.emit("Add", gamma, poison)


def _under_scales(
    w: Writer, blocks: str, in_steps: str, inverse: str, scales: str, vector: int, highest: float
) -> tuple[str, str]:
    """Products of code and scale, and their squared error against `in_steps`, summed in the order of the kernels."""
    scaled = w.emit("Mul", blocks, w.emit("Mul", inverse, w.emit("Reciprocal", scales)))
    limits = (w.number(-highest, _FLOAT), w.number(highest, _FLOAT))
    products = w.emit("Mul", w.emit("Clip", w.emit("Round", scaled), *limits), scales)
    error = w.emit("Sub", in_steps, products)
    total = w.emit("Mul", error, error)
    width = 1 << (vector - 1).bit_length()
    if width > vector:
        total = w.emit("Pad", total, w.integers([0, width - vector]), None, w.integers([-1]))
    while width > 1:
        width //= 2
        total = w.emit("Add", *w.emit_several("Split", (total, w.integers([width, width])), 2, axis=-1))
    return products, total


def _range(w: Writer, source: str, axes: Sequence[int] | None, levels: float) -> tuple[str, str]:
    """What values are multiplied by to span `levels`, and its inverse; zeros for rows that count as zero."""
    largest = reduce(w, "ReduceMax", w.emit("Abs", source), axes, keep=True)
    limit, zero = w.number(levels, _FLOAT), w.number(0.0, _FLOAT)
    tiny = w.emit("Less", largest, w.number(_SMALLEST, _FLOAT))
    inverse = w.emit("Where", tiny, zero, w.emit("Div", limit, largest))
    return inverse, w.emit("Where", tiny, zero, w.emit("Div", largest, limit))


def _poison(w: Writer, scaled: str, axes: Sequence[int] | None) -> str:
    """Zero, but NaN where NaN or infinity is among the values, which a maximum may overlook."""
    return w.emit("Mul", reduce(w, "ReduceSum", scaled, axes, keep=True), w.number(0.0, _FLOAT))


@converts("taut.fake_quantise.default")
def _fake_quantise(w: Writer, x: Value, name: str, dimension: int) -> str:
    form = get_format(name)
    axis = x.axis(dimension)
    if axis != x.rank - 1:
        unsupported(w.node, "activations are quantised along their last dimension only", fix="move it to the end")
    elements = form.elements
    if not isinstance(elements, IntegerElements) or form.offset != "none" or elements.fraction_bits:
        _no_counterpart(w, form)
    source = w.cast(x, _FLOAT)
    # Rows with NaN or infinity become NaN, and must not disturb a scale that others share.
    poison = _poison(w, source, [-1])
    source = w.emit("Where", w.emit("IsNaN", poison), w.number(0.0, _FLOAT), source)
    shared = form.coarse is not None and form.coarse.per == "tensor"
    if form.scales is None and form.dynamic_chooser == "max":
        integers, scale = quantise_whole(w, source, None if shared else [-1], elements.high)
    elif form.scales is not None and form.scales.kind == "integer" and form.dynamic_chooser == "closest":
        assert form.vector is not None
        highest_scale = 2**form.scales.bits - 1
        integers, scale = quantise_in_vectors(
            w, source, x, vector=form.vector, highest=elements.high, highest_scale=highest_scale, shared=shared
        )
    else:
        _no_counterpart(w, form)
    result = w.emit("Add", w.emit("Mul", integers, scale), poison)
    return w.cast(result, w.dtype(), of=_FLOAT)


def _no_counterpart(w: Writer, form: Format) -> NoReturn:
    unsupported(
        w.node,
        f"activations in {form.name} ({form.title}) have no counterpart in ONNX",
        fix="choose activations with integer codes and one float32 scale a token or integer scales, such as"
        " int8-channel or vsq4-v16-s4",
    )
