"""Recipe and packed weights of a convolution of each channel by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taut.codegen._convolution_window import Window
from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError


def depthwise_recipe(
    x: Operand,
    window: Window,
    *,
    extras: Sequence[Operand] = (),
    expression: Expression = (("accumulator",),),
) -> Recipe:
    """Each output pixel and channel: a sum over the window, then an expression.

    Operands: x; the weights as `pack_depthwise` gives them, float32 [KH, KW, C]; the extras; the output, float32
    [N, OH, OW, C].

    Args:
        x: float32 [N, H, W, C], N, H and W static or not; pixels may lie at any stride.
        window: kernel, stride, padding and dilation.
        extras: float32 operands that the expression uses, numbered from 2, aligned with the output from the right; a
            static size of 1 broadcasts. Only one of the output's rank may share its memory.
        expression: from ("accumulator",).

    Raises:
        ArgumentError: the channels are not static, or the window is none.
    """
    window.check()
    batch, height, width, channels = x.shape
    if not channels:
        raise ArgumentError("channels", channels, expected="a static number of channels from 1")
    output = (batch, window.output(0, height), window.output(1, width), channels)
    weights = Operand("float32", (*window.kernel, channels))
    operands = (x, weights, *extras, Operand("float32", output))
    return Recipe("depthwise", operands, parameters=window.parameters(), expression=expression)


def pack_depthwise(weight: np.ndarray) -> np.ndarray:
    """Weights float32 [C, 1, KH, KW] as the kernel reads them: [KH, KW, C].

    Raises:
        ArgumentError: there is more than one input channel in a group.
    """
    if weight.ndim != 4 or weight.shape[1] != 1:
        raise ArgumentError("weight", weight.shape, expected="[C, 1, KH, KW]")
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0), np.float32)
