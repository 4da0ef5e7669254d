"""Recipe and packed weights of a convolution over pixels whose channels lie next to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taut.codegen._convolution_plan import choose_block
from taut.codegen._convolution_window import Window
from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError

SUM: Expression = (("accumulator",),)


def convolution_recipe(
    x: Operand,
    channels: int,
    window: Window,
    *,
    extras: Sequence[Operand] = (),
    expression: Expression = SUM,
    channels_first: bool = False,
) -> Recipe:
    """Each output pixel: sums over the window and the channels, then an expression.

    Operands: x; the weights as `pack_convolution` gives them, float32 [blocks, KH, KW, C, block] with
    block = recipe.parameters["block"]; the extras; the output, float32 [N, OH, OW, channels]. A grouped convolution is
    one call a group on views of the channels; a 1x1 convolution of stride 1 over contiguous pixels is fastest when
    they are given as one row, [N, 1, H*W, C].

    Args:
        x: float32 [N, H, W, C], N, H and W static or not; pixels may lie at any stride.
        channels: of the output.
        window: kernel, stride, padding and dilation.
        extras: float32 operands that the expression uses, numbered from 2, aligned with the output from the right: bias
            [channels], residual [N, OH, OW, channels]; static sizes of 1 broadcast.
        expression: from ("accumulator",).
        channels_first: x is [N, C, H, W] instead; meant for the few channels of an image.

    Raises:
        ArgumentError: the channels are not static, or the window is none.
    """
    window.check()
    if channels_first:
        batch, depth, height, width = x.shape
    else:
        batch, height, width, depth = x.shape
    if depth is None or min(depth, channels) < 1:
        raise ArgumentError("channels", (depth, channels), expected="static numbers of channels from 1")
    output = (batch, window.output(0, height), window.output(1, width), channels)
    block = choose_block(window, depth, output)
    weights = Operand("float32", (-(-channels // block), *window.kernel, depth, block))
    return Recipe(
        "convolution",
        (x, weights, *extras, Operand("float32", output)),
        parameters={**window.parameters(), "block": block, "channels_first": channels_first},
        expression=expression,
    )


def pack_convolution(weight: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Weights as the kernel of the recipe reads them.

    Args:
        weight: float32 [O, C, KH, KW].
        recipe: of the kernel.

    Returns:
        float32 [blocks, KH, KW, C, block], with zeros for channels that are not there.

    Raises:
        ArgumentError: the shape is not the recipe's.
    """
    blocks, *kernel, depth, block = (size or 0 for size in recipe.operands[1].shape)
    if weight.shape[1:] != (depth, *kernel) or weight.shape[0] != recipe.operands[-1].shape[3]:
        raise ArgumentError("weight", weight.shape, expected=f"[{recipe.operands[-1].shape[3]}, {depth}, {kernel}]")
    packed = np.zeros((blocks * block, *weight.shape[1:]), np.float32)
    packed[: weight.shape[0]] = weight
    return np.ascontiguousarray(packed.reshape(blocks, block, *weight.shape[1:]).transpose(0, 3, 4, 2, 1))
