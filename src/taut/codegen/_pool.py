"""Recipes of pooling: the largest or the mean value of each channel in a window or in the whole image."""

from __future__ import annotations

from collections.abc import Sequence

from taut.codegen._convolution_window import Sides, Window
from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError

_RESULT: Expression = (("accumulator",),)


def max_pool_recipe(
    x: Operand, window: Window, *, extras: Sequence[Operand] = (), expression: Expression = _RESULT
) -> Recipe:
    """The largest value of each channel in a window; NaN if one is NaN, negative infinity if the window has no pixel.

    Operands: x; the extras; the output, float32 [N, OH, OW, C]. A window that `ceil_mode` adds at the end is asked
    for by more padding below and on the right.

    Args:
        x: float32 [N, H, W, C], N, H and W static or not; pixels may lie at any stride.
        window: kernel, stride, padding and dilation.
        extras: float32 operands that the expression uses, numbered from 1, aligned with the output from the right.
        expression: from ("accumulator",), the largest value.

    Raises:
        ArgumentError: the channels are not static, or the window is none.
    """
    return _recipe("max", x, window, extras, expression, {})


def average_pool_recipe(
    x: Operand,
    window: Window,
    *,
    counted: Sides = (0, 0, 0, 0),
    extras: Sequence[Operand] = (),
    expression: Expression = _RESULT,
) -> Recipe:
    """The mean value of each channel in a window.

    Operands: x; the extras; the output, float32 [N, OH, OW, C].

    Args:
        x: float32 [N, H, W, C], N, H and W static or not; pixels may lie at any stride.
        window: kernel, stride, padding (with what `ceil_mode` adds below and on the right) and dilation.
        counted: how much of the padding counts as pixels of value 0: none, or with `count_include_pad` the padding
            without what `ceil_mode` adds.
        extras: float32 operands that the expression uses, numbered from 1, aligned with the output from the right.
        expression: from ("accumulator",), the mean.

    Raises:
        ArgumentError: the channels are not static, the window is none or dilated, or more is counted than padded.
    """
    if window.dilation != (1, 1):
        raise ArgumentError("window", window, expected="a dilation of 1")
    if any(not 0 <= count <= pad for count, pad in zip(counted, window.padding, strict=True)):
        raise ArgumentError("counted", counted, expected=f"from 0 to the padding {window.padding}")
    return _recipe(
        "average", x, window, extras, expression, {f"counted{side}": count for side, count in enumerate(counted)}
    )


def global_average_recipe(x: Operand, *, extras: Sequence[Operand] = (), expression: Expression = _RESULT) -> Recipe:
    """The mean value of each channel in the image.

    Operands: x; the extras; the output, float32 [N, 1, 1, C].

    Args:
        x: float32 [N, H, W, C], N, H and W static or not; pixels may lie at any stride.
        extras: float32 operands that the expression uses, numbered from 1, aligned with the output from the right.
        expression: from ("accumulator",), the mean.

    Raises:
        ArgumentError: the channels are not static.
    """
    return _recipe("global_average", x, Window((1, 1)), extras, expression, {})


def _recipe(
    kind: str,
    x: Operand,
    window: Window,
    extras: Sequence[Operand],
    expression: Expression,
    parameters: dict[str, int],
) -> Recipe:
    window.check()
    batch, height, width, channels = x.shape
    if not channels:
        raise ArgumentError("channels", channels, expected="a static number of channels from 1")
    rows, columns = window.output(0, height), window.output(1, width)
    if kind == "global_average":
        rows = columns = 1
    return Recipe(
        "pool",
        (x, *extras, Operand("float32", (batch, rows, columns, channels))),
        parameters={"kind": kind, **window.parameters(), **parameters},
        expression=expression,
    )
