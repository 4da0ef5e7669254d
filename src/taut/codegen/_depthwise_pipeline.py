"""A depthwise convolution in Halide: inputs of a vector of channels staged by strips, neighbouring outputs together.

Dimensions run innermost first: c channel, i column, j row, n image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import halide as hl

from taut.codegen._buffers import inputs
from taut.codegen._convolution_staging import (
    EXACT,
    MASK,
    SHIFT,
    Staging,
    aligned,
    contiguous,
    host_vectors,
    split_pixels,
)
from taut.codegen._convolution_window import Window, strips
from taut.codegen._expression import evaluate
from taut.codegen._recipe import Operand, Recipe

_SCRATCH = 24 * 1024  # bytes of a strip: half of the first-level cache
_TILES = ((4, 2), (2, 4), (7, 1), (8, 1), (2, 2), (4, 1), (1, 4), (3, 1), (2, 1), (1, 1))  # the better ones first


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """The pipeline of a recipe that `depthwise_recipe` made, and its inputs."""
    parameters = inputs(recipe)
    contiguous(parameters[1], recipe.operands[1])
    window = Window.of(recipe)
    channels = int(recipe.operands[0].shape[3] or 0)
    staging = Staging(recipe, parameters[0], window, channels, together=False)
    c, i, j, n = (hl.Var(name) for name in "cijn")
    value = hl.f32(0)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            x = staging.at(
                c,
                i * window.stride[1] + column * window.dilation[1],
                j * window.stride[0] + row * window.dilation[0],
                n,
            )
            value += x * parameters[1][c, column, row]
    result = hl.Func("result")
    extras = aligned(recipe, parameters, (c, i, j, n), first=2)
    result[c, i, j, n] = evaluate(recipe.expression, extras, accumulator=value)[-1]
    schedule_window(result, staging, window, recipe.operands[2:-1], recipe.operands[-1])
    return hl.Pipeline(result), parameters


def schedule_window(
    result: hl.Func, staging: Staging, window: Window, extras: Sequence[Operand], output: Operand
) -> None:
    """Schedule what reads a window of the staged inputs channel by channel."""
    c, _, _, n = result.args()
    lanes, _ = host_vectors()
    lane, block = hl.Var("lane"), hl.Var("block")
    rows, columns, channels = (output.shape[1], output.shape[2], int(output.shape[3] or 0))
    # Where channels do not fill vectors, the last vector starts earlier, unless that would read what is overwritten.
    safe = all(math.prod(size or 2 for size in operand.shape[:-1]) == 1 for operand in extras)
    tail = EXACT if channels % lanes == 0 else SHIFT if safe and channels >= lanes else MASK
    most = channels // lanes if tail is SHIFT else -(-channels // lanes)
    together = lanes * min(range(min(4, most), 0, -1), key=lambda count: -(-channels // (count * lanes)) * count)
    width, height = min(_TILES, key=lambda tile: _waste(columns, tile[0]) * _waste(rows, tile[1]))
    tile = strips(window, together, output.shape, width, height, _SCRATCH)
    ii, ji, it, jt, across, down = split_pixels(result, output, tile)
    result.split(c, block, c, together, tail).split(c, c, lane, lanes, MASK if tail is MASK else EXACT).vectorize(lane)
    result.reorder(lane, ii, ji, it, jt, c, block, across, down, n).unroll(ii).unroll(ji)
    staging.schedule(result, block, tile, lanes, channels=together, masked=tail is MASK)


def _waste(size: int | None, step: int) -> float:
    return -(-size // step) * step / size if size else 1.0
