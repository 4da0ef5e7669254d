"""Recipe and packed weights of a convolution of each channel by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from taut.codegen._convolution_window import Window
from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError


def depthwise_recipe(
    x: Operand,
    window: Window,
    *,
    beside: Sequence[Operand] = (),
    before: Expression = (),
    extras: Sequence[Operand] = (),
    expression: Expression = (("accumulator",),),
) -> Recipe:
    """Each output pixel and channel: a sum over the window, then an expression.

    Operands: x; those beside it; the weights as `pack_depthwise` gives them, float32 [KH, KW, C]; the extras; the
    output, float32 [N, OH, OW, C].

    Args:
        x: float32 [N, H, W, C], N, H and W static or not (static with `before`); pixels may lie at any stride.
        window: kernel, stride, padding and dilation.
        beside: float32 operands that `before` uses, numbered from 1, aligned with x from the right; a static size of 1
            broadcasts. They must not share memory with the output.
        before: what the window sees, from ("operand", 0) for the element of x; by default that. Zeros are around it.
        extras: float32 operands that the expression uses, numbered from 2 and the number of those beside x, aligned
            with the output from the right; a static size of 1 broadcasts. Only one of the output's rank may share its
            memory.
        expression: from ("accumulator",).

    Raises:
        ArgumentError: the channels are not static, the window is none, operands beside x have no use, or `before` is
            given for images whose sizes are not static.
    """
    window.check()
    if beside and not before:
        raise ArgumentError("beside", len(beside), expected="none without an expression before the window")
    batch, height, width, channels = x.shape
    if not channels:
        raise ArgumentError("channels", channels, expected="a static number of channels from 1")
    if before and not (height and width):
        raise ArgumentError("x", x.shape, expected="a static height and width with an expression before the window")
    output = (batch, window.output(0, height), window.output(1, width), channels)
    weights = Operand("float32", (*window.kernel, channels))
    operands = (x, *beside, weights, *extras, Operand("float32", output))
    parameters: dict[str, int | float | bool | str] = {**window.parameters()}
    if before:
        parameters |= {"inputs": 1 + len(beside), "before": json.dumps(before)}
    return Recipe("depthwise", operands, parameters=parameters, expression=expression)


def inputs_before(recipe: Recipe) -> tuple[int, Expression]:
    """How many operands of such a recipe stand before its weights, and what the window sees of them."""
    entries = json.loads(str(recipe.parameters.get("before", "[]")))
    return int(recipe.parameters.get("inputs", 1)), tuple(tuple(entry) for entry in entries)


def pack_depthwise(weight: np.ndarray) -> np.ndarray:
    """Weights float32 [C, 1, KH, KW] as the kernel reads them: [KH, KW, C].

    Raises:
        ArgumentError: there is more than one input channel in a group.
    """
    if weight.ndim != 4 or weight.shape[1] != 1:
        raise ArgumentError("weight", weight.shape, expected="[C, 1, KH, KW]")
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0), np.float32)
