"""A convolution in Halide: inputs staged by strips, tiles of sums in registers.

Dimensions run innermost first: o output channel, i column, j row, n image.
"""

from __future__ import annotations

from collections.abc import Sequence

import halide as hl

from taut.codegen._buffers import extent, inputs
from taut.codegen._convolution_plan import Plan, plan
from taut.codegen._convolution_staging import (
    EXACT,
    MASK,
    Staging,
    aligned,
    contiguous,
    host_vectors,
    repeatable,
    split_strips,
)
from taut.codegen._convolution_window import Window
from taut.codegen._expression import evaluate
from taut.codegen._recipe import Operand, Recipe


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """The pipeline of a recipe that `convolution_recipe` made, and its inputs."""
    parameters = inputs(recipe)
    weights = parameters[1]
    contiguous(weights, recipe.operands[1])
    window, output = Window.of(recipe), recipe.operands[-1]
    depth, block = (int(size or 0) for size in recipe.operands[1].shape[3:])
    lanes, registers = host_vectors()
    tiles = plan(window, depth, output.shape, -(-block // lanes), registers)
    first = bool(recipe.parameters["channels_first"])
    fitting = _fitting(recipe.operands[2:-1], output, tiles)
    staging, image = None, parameters[0]
    if window.parameters() != Window((1, 1)).parameters() or first:
        staging = Staging(recipe, parameters[0], window, depth, channels_first=first)
    elif not fitting:
        free = (hl.Expr(), hl.Expr())
        height, width = ((hl.i32(0), extent(parameters[0], recipe.operands[0], axis)) for axis in (1, 2))
        image = hl.BoundaryConditions.repeat_edge(image, [free, width, height, free])

    o, i, j, n = (hl.Var(name) for name in "oijn")
    taps = hl.RDom([(0, depth), (0, window.kernel[1])] + ([] if tiles.share else [(0, window.kernel[0])]), "taps")
    sums = hl.Func("sums")
    sums[o, i, j, n] = hl.f32(0)
    value = hl.Expr(sums[o, i, j, n])
    for row in range(window.kernel[0]) if tiles.share else (taps.z,):
        column = i * window.stride[1] + taps.y * window.dilation[1]
        place = taps.x, column, j * window.stride[0] + row * window.dilation[0], n
        x = staging.at(*place) if staging else image[taps.x, i, j, n]
        value += x * weights[o % block, taps.x, taps.y, row, o // block]
    sums[o, i, j, n] = value

    result = hl.Func("result")
    extras = aligned(recipe, parameters, (o, i, j, n), first=2)
    result[o, i, j, n] = evaluate(recipe.expression, extras, accumulator=hl.Expr(sums[o, i, j, n]))[-1]
    _schedule(result, sums, staging, taps, tiles, output, block, depth, lanes, shift=staging is None and fitting)
    if not staging:
        result.specialize(parameters[0].dim(1).stride() == depth)
    return hl.Pipeline(result), parameters


def _fitting(extras: Sequence[Operand], output: Operand, tiles: Plan) -> bool:
    """Whether every tile lies in the image, if need be by starting earlier."""
    sizes = ((output.shape[1], tiles.tile.height), (output.shape[2], tiles.tile.width))
    whole = all(step == 1 or (size is not None and size % step == 0) for size, step in sizes)
    within = all(step == 1 or (size is not None and size >= step) for size, step in sizes)
    return whole or (within and repeatable(extras))


def _schedule(
    result: hl.Func,
    sums: hl.Func,
    staging: Staging | None,
    taps: hl.RDom,
    tiles: Plan,
    output: Operand,
    block: int,
    depth: int,
    lanes: int,
    *,
    shift: bool,
) -> None:
    o, i, j, n = result.args()
    blocks, vector, lane = hl.Var("block"), hl.Var("vector"), hl.Var("lane")
    ii, ji, it, jt, across, down = split_strips(result, output, tiles.tile, shift=shift)
    result.split(o, blocks, o, block, EXACT if int(output.shape[3] or 0) % block == 0 else MASK)
    result.split(o, vector, lane, lanes).vectorize(lane)
    result.reorder(lane, vector, ii, ji, it, jt, blocks, across, down, n).unroll(vector).unroll(ii).unroll(ji)

    sums.compute_at(result, it).store_in(hl.MemoryType.Stack)
    sums.bound_extent(o, block).bound_extent(i, tiles.tile.width).bound_extent(j, tiles.tile.height)
    sums.split(o, vector, lane, lanes).reorder(lane, vector, i, j).vectorize(lane).unroll(vector).unroll(i).unroll(j)
    # Neighbouring rows next to each other: an input that they share is loaded once.
    pixels, outer = ((j, i), (taps.y,)) if tiles.share else ((i, j), (taps.y, taps.z))
    update = sums.update().split(o, vector, lane, lanes).reorder(lane, vector, *pixels, taps.x, *outer)
    update.vectorize(lane).unroll(vector).unroll(i).unroll(j)
    if depth <= 4:
        update.unroll(taps.x)
    elif depth % 2 == 0 and tiles.tile.width * tiles.tile.height * block < 24 * lanes:
        update.unroll(taps.x, 2)  # more would let the compiler reorder the sums and spill
    if staging:
        staging.schedule(result, across, tiles.tile, lanes)
