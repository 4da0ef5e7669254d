"""Pooling in Halide. Dimensions run innermost first: c channel, i column, j row, n image."""

from __future__ import annotations

import math

import halide as hl

from taut.codegen import _math
from taut.codegen._buffers import constrain, extent, inputs
from taut.codegen._convolution_staging import EXACT, MASK, Staging, aligned, host_vectors
from taut.codegen._convolution_window import Window
from taut.codegen._depthwise_pipeline import Folded, schedule_window, source_of
from taut.codegen._expression import evaluate
from taut.codegen._recipe import Operand, Recipe

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1  # as the bits of a float, the latter is a NaN


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """The pipeline of a recipe that a function of `_pool` made, and its inputs."""
    parameters = inputs(recipe)
    if recipe.parameters["kind"] == "global_average":
        return _global_average(recipe, parameters), parameters
    window, largest = Window.of(recipe), recipe.parameters["kind"] == "max"
    channels = int(recipe.operands[0].shape[3] or 0)
    place = c, i, j, n = tuple(hl.Var(name) for name in "cijn")
    x = parameters[0]
    if largest:
        staging = Staging(recipe, x, window, channels, together=False, outside=-math.inf, encode=_key)
        folded = Folded(window, staging, place, hl.i32(_LOWEST), lambda total, key, *_: hl.max(total, key))
        value = _value(folded.value)
    else:
        source = source_of(recipe, x, window, channels)
        folded = Folded(window, source, place, hl.f32(0), lambda total, value, *_: total + value)
        value = folded.value * _share(recipe, window, x, i, j)
    result = hl.Func("result")
    extras = aligned(recipe, parameters, place, first=1)
    result[c, i, j, n] = evaluate(recipe.expression, extras, accumulator=value)[-1]
    schedule_window(result, folded, recipe.operands[1:-1], recipe.operands[-1])
    return hl.Pipeline(result), parameters


def _key(value: hl.Expr) -> hl.Expr:
    """An integer that compares as the value does, with NaN above infinity."""
    bits = hl.reinterpret(hl.Int(32), value)
    return hl.select(_math.is_nan(value), hl.i32(_HIGHEST), bits ^ ((bits >> 31) & _HIGHEST))


def _value(key: hl.Expr) -> hl.Expr:
    return hl.reinterpret(hl.Float(32), key ^ ((key >> 31) & _HIGHEST))


def _share(recipe: Recipe, window: Window, x: hl.ImageParam, i: hl.Var, j: hl.Var) -> hl.Expr:
    """One over the number of pixels that count in the window of an output."""
    counted = [int(recipe.parameters[f"counted{side}"]) for side in range(4)]
    if counted == list(window.padding):
        return hl.f32(1.0 / math.prod(window.kernel))
    count = hl.i32(1)
    for axis, place in ((0, j), (1, i)):
        first = place * window.stride[axis] - window.padding[2 * axis]
        size = extent(x, recipe.operands[0], 1 + axis)
        last = hl.min(first + window.kernel[axis], size + counted[2 * axis + 1])
        count *= last - hl.max(first, -counted[2 * axis])
    return hl.f32(1.0) / hl.cast(hl.Float(32), hl.max(count, 1))


def _global_average(recipe: Recipe, parameters: list[hl.ImageParam]) -> hl.Pipeline:
    x, output = parameters[0], recipe.operands[-1]
    place = c, i, j, n = tuple(hl.Var(name) for name in "cijn")
    height, width = (extent(x, recipe.operands[0], axis) for axis in (1, 2))
    pixels = hl.RDom([(0, width), (0, height)], "pixels")
    sums, result = hl.Func("sums"), hl.Func("result")
    sums[c, n] = hl.f32(0)
    sums[c, n] += x[c, pixels.x, pixels.y, n]
    mean = hl.Expr(sums[c, n]) / hl.cast(hl.Float(32), width * height)
    extras = aligned(recipe, parameters, place, first=1)
    result[c, i, j, n] = evaluate(recipe.expression, extras, accumulator=mean)[-1]
    _schedule_sums(result, sums, pixels, output)
    return hl.Pipeline(result)


def _schedule_sums(result: hl.Func, sums: hl.Func, pixels: hl.RDom, output: Operand) -> None:
    c, i, j, n = result.args()
    constrain(result.output_buffer(), output)
    channels, (lanes, _) = int(output.shape[3] or 0), host_vectors()
    block, vector, lane = hl.Var("block"), hl.Var("vector"), hl.Var("lane")
    together = lanes * min(-(-channels // lanes), 8)  # as many sums as hide the latency of an addition
    tail = EXACT if channels % together == 0 else MASK
    result.bound(c, 0, channels).bound(i, 0, 1).bound(j, 0, 1)
    result.split(c, block, c, together, tail).split(c, vector, lane, lanes, tail).vectorize(lane)
    result.reorder(lane, vector, i, j, block, n)
    sums.compute_at(result, block).bound_storage(c, together).store_in(hl.MemoryType.Stack)
    sums.split(c, vector, lane, lanes, tail).vectorize(lane)
    update = sums.update().split(c, vector, lane, lanes, tail).reorder(lane, vector, pixels.x, pixels.y).vectorize(lane)
    if tail is EXACT:
        sums.bound_extent(c, together).unroll(vector)
        update.unroll(vector)
