"""A depthwise convolution in Halide: inputs of a vector of channels staged by strips, neighbouring outputs together.

Dimensions run innermost first: c channel, i column, j row, n image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import halide as hl

from taut.codegen._buffers import inputs
from taut.codegen._computed_inputs import ComputedInputs
from taut.codegen._convolution_staging import (
    EXACT,
    MASK,
    SHIFT,
    Direct,
    Staging,
    aligned,
    contiguous,
    host_vectors,
    repeatable,
    split_strips,
    split_tiles,
)
from taut.codegen._convolution_window import Tile, Window, strips
from taut.codegen._depthwise import inputs_before
from taut.codegen._expression import aligned as element
from taut.codegen._expression import evaluate
from taut.codegen._recipe import Operand, Recipe

_SCRATCH = 24 * 1024  # bytes of a strip: half of the first-level cache
_UNROLLED = 12  # taps whose weights stay in registers; more of them are taken row by row
_TILES = ((2, 4), (4, 2), (2, 2), (7, 1), (8, 1), (4, 1), (1, 4), (3, 1), (2, 1), (1, 1))  # the better ones first


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """The pipeline of a recipe that `depthwise_recipe` made, and its inputs."""
    parameters = inputs(recipe)
    count, before = inputs_before(recipe)
    weights = parameters[count]
    contiguous(weights, recipe.operands[count])
    window = Window.of(recipe)
    channels = int(recipe.operands[0].shape[3] or 0)
    c, i, j, n = (hl.Var(name) for name in "cijn")
    source = source_of(recipe, parameters[0], window, channels)
    if before:

        def value(place: tuple[hl.Var, ...]) -> hl.Expr:
            operands = zip(parameters[:count], recipe.operands[:count], strict=True)
            return evaluate(before, [element(*pair, place) for pair in operands])[-1]

        source = ComputedInputs(recipe, parameters[0], window, value)
    folded = Folded(
        window, source, (c, i, j, n), hl.f32(0), lambda total, x, column, row: total + x * weights[c, column, row]
    )
    result = hl.Func("result")
    extras = aligned(recipe, parameters, (c, i, j, n), first=count + 1)
    result[c, i, j, n] = evaluate(recipe.expression, extras, accumulator=folded.value)[-1]
    schedule_window(result, folded, recipe.operands[count + 1 : -1], recipe.operands[-1])
    return hl.Pipeline(result), parameters


def source_of(recipe: Recipe, x: hl.ImageParam, window: Window, channels: int) -> Direct | Staging:
    """The inputs with zeros around them: in place if the taps are few, else staged."""
    if math.prod(window.kernel) <= _UNROLLED:
        return Direct(recipe, x, window)
    return Staging(recipe, x, window, channels, together=False)


class Folded:
    """What a window of the inputs comes to, channel by channel.

    Args:
        window: how outputs look at inputs.
        source: the inputs.
        place: channel, column, row and image of the output.
        start: the value of no input.
        step: a new value from the old one, an input, and its column and row in the window.
    """

    def __init__(
        self,
        window: Window,
        source: Direct | Staging | ComputedInputs,
        place: tuple[hl.Var, ...],
        start: hl.Expr,
        step: Callable[[hl.Expr, hl.Expr, int, Any], hl.Expr],
    ) -> None:
        self.window, self.source = window, source
        self.func: hl.Func | None = None
        c, i, j, n = place

        def fold(value: hl.Expr, row: Any) -> hl.Expr:
            for column in range(window.kernel[1]):
                across = i * window.stride[1] + column * window.dilation[1]
                x = source.at(c, across, j * window.stride[0] + row * window.dilation[0], n)
                value = step(value, x, column, row)
            return value

        if window.kernel[0] * window.kernel[1] <= _UNROLLED:
            self.value = start
            for row in range(window.kernel[0]):
                self.value = fold(self.value, row)
            return
        rows = hl.RDom([(0, window.kernel[0])], "rows")
        func = hl.Func("folded")
        func[c, i, j, n] = start
        func[c, i, j, n] = fold(hl.Expr(func[c, i, j, n]), rows.x)
        self.func, self._rows, self.value = func, rows, hl.Expr(func[c, i, j, n])

    def schedule(self, consumer: hl.Func, at: hl.Var, tile: Tile, lanes: int, *, masked: bool) -> None:
        """Keep the values of a tile in registers while the rows of the window pass."""
        if self.func is None:
            return
        c, i, j, _ = self.func.args()
        self.func.compute_at(consumer, at).store_in(hl.MemoryType.Stack)
        self.func.bound_extent(i, tile.width).bound_extent(j, tile.height)
        if masked:
            self.func.bound_storage(c, lanes)
        else:
            self.func.bound_extent(c, lanes)
        tail = MASK if masked else EXACT
        self.func.vectorize(c, lanes, tail).unroll(i).unroll(j)
        update = self.func.update().reorder(c, i, j, self._rows.x).vectorize(c, lanes, tail)
        update.unroll(i).unroll(j)


def schedule_window(result: hl.Func, folded: Folded, extras: Sequence[Operand], output: Operand) -> None:
    """Schedule an output that a window of the staged inputs gives."""
    c, _, _, n = result.args()
    lanes, _ = host_vectors()
    if isinstance(folded.source, ComputedInputs):
        at, tile, masked = folded.source.schedule(result, extras, output)
        folded.schedule(result, at, tile, lanes, masked=masked)
        return
    lane, block = hl.Var("lane"), hl.Var("block")
    rows, columns, channels = (output.shape[1], output.shape[2], int(output.shape[3] or 0))
    # Where channels do not fill vectors, the last vector starts earlier, unless that would read what is overwritten.
    shift = repeatable(extras) and channels >= lanes
    tail = EXACT if channels % lanes == 0 else SHIFT if shift else MASK
    most = channels // lanes if tail is SHIFT else -(-channels // lanes)
    together = lanes * min(range(min(4, most), 0, -1), key=lambda count: -(-channels // (count * lanes)) * count)
    width, height = min(_TILES, key=lambda tile: _waste(columns, tile[0]) * _waste(rows, tile[1]))
    inner = MASK if tail is MASK else EXACT
    if isinstance(folded.source, Direct):
        ii, ji, it, jt = split_tiles(result, output, width, height, shift=repeatable(extras))
        result.split(c, c, lane, lanes, tail).vectorize(lane)
        result.reorder(lane, ii, ji, c, it, jt, n)
        # Pixels at run-time strides take one at a time: the addresses of a tile would not fit in registers.
        dense = folded.source.dense & (result.output_buffer().dim(1).stride() == channels)
        result.specialize(dense).unroll(ii).unroll(ji)
        return
    tile = strips(folded.window, together, output.shape, width, height, _SCRATCH)
    ii, ji, it, jt, across, down = split_strips(result, output, tile)
    result.split(c, block, c, together, tail).split(c, c, lane, lanes, inner).vectorize(lane)
    result.reorder(lane, ii, ji, it, jt, c, block, across, down, n).unroll(ii).unroll(ji)
    folded.schedule(result, it, tile, lanes, masked=tail is MASK)
    folded.source.schedule(result, block, tile, lanes, channels=together, masked=tail is MASK)


def _waste(size: int | None, step: int) -> float:
    return -(-size // step) * step / size if size else 1.0
