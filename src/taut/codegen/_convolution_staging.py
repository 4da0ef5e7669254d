"""Inputs of a strip of outputs, copied with the zeros around the image to a scratch of constant strides.

The copy costs one load and one store where each value then takes part in many sums, and it leaves the sums free of
borders, strides and run-time sizes. Dimensions run innermost first: c channel, i column, j row, n image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import halide as hl

from taut.codegen._buffers import constrain, extent
from taut.codegen._convolution_window import Tile, Window
from taut.codegen._recipe import Operand, Recipe

GUARD = hl.TailStrategy.GuardWithIf
EXACT = hl.TailStrategy.RoundUp
MASK = hl.TailStrategy.Predicate
SHIFT = hl.TailStrategy.ShiftInwards
STACK = 256 * 1024
"""Bytes of a scratch that may lie on the stack."""


class Staging:
    """The staged inputs as a function.

    Args:
        recipe: its operand 0 is the image, [N, H, W, C], or [N, C, H, W] where `channels_first`.
        x: that operand.
        window: how outputs look at it.
        channels: of the image.
        channels_first: the layout of the image.
        together: whether all channels of a pixel are staged at once, so that they may be copied as one run.
        outside: the value around the image.
        encode: what is staged of a value.
    """

    def __init__(
        self,
        recipe: Recipe,
        x: hl.ImageParam,
        window: Window,
        channels: int,
        *,
        channels_first: bool = False,
        together: bool = True,
        outside: float = 0.0,
        encode: Callable[[hl.Expr], hl.Expr] = lambda value: value,
    ) -> None:
        self._window, self._channels, self._first = window, channels, channels_first
        self._flat = together and not channels_first and channels % 16 != 0
        height, width = (extent(x, recipe.operands[0], axis) for axis in ((2, 3) if channels_first else (1, 2)))
        self.func = hl.Func("staged")
        self._axes = c, i, j, n = hl.Var("c"), hl.Var("i"), hl.Var("j"), hl.Var("n")
        row = j - window.padding[0]
        inside = (row >= 0) & (row < height)
        y = hl.clamp(row, 0, hl.max(height, 1) - 1)
        if self._flat:
            # A row of contiguous pixels is copied as one run of values, whatever the number of channels.
            place = i - window.padding[2] * channels
            safe = hl.clamp(place, 0, hl.max(width, 1) * channels - 1)
            run = x[hl.unsafe_promise_clamped(safe, 0, channels - 1), 0, y, n]
            self._contiguous = x.dim(1).stride() == channels
            value = hl.select(self._contiguous, run, x[safe % channels, safe // channels, y, n])
            inside &= (place >= 0) & (place < width * channels)
            self.func[i, j, n] = encode(hl.select(inside, value, hl.f32(outside)))
        else:
            column = i - window.padding[2]
            safe = hl.clamp(column, 0, hl.max(width, 1) - 1)
            value = x[safe, y, c, n] if channels_first else x[c, safe, y, n]
            inside &= (column >= 0) & (column < width)
            self.func[c, i, j, n] = encode(hl.select(inside, value, hl.f32(outside)))

    def at(self, c: hl.Expr, i: hl.Expr, j: hl.Expr, n: hl.Expr) -> hl.Expr:
        """Channel c of the staged pixel in column i and row j, counted from the first one outside."""
        return hl.Expr(self.func[i * self._channels + c, j, n] if self._flat else self.func[c, i, j, n])

    def schedule(
        self,
        consumer: hl.Func,
        at: hl.Var,
        tile: Tile,
        lanes: int,
        *,
        channels: int | None = None,
        masked: bool = False,
    ) -> None:
        """Copy once a strip, of so many channels (by default all), which do not fill their vectors if `masked`."""
        c, i, j, n = self._axes
        channels = channels or self._channels
        columns = self._window.reach(1, tile.columns * tile.width)
        rows = self._window.reach(0, tile.rows * tile.height)
        # A run is copied by whole vectors, the last of which starts earlier: it holds one at least.
        run = max(columns * channels if self._flat else columns, lanes)
        if self._first:
            columns = run
        func = self.func.compute_at(consumer, at).bound_storage(j, rows)
        if rows * columns * channels * 4 <= STACK:
            func.store_in(hl.MemoryType.Stack)
        if self._flat:
            func.bound_extent(i, run).vectorize(i, lanes)
            func.specialize(self._contiguous)
            return
        func.bound_extent(i, columns)
        if masked:
            func.bound_storage(c, channels)
        else:
            func.bound_extent(c, channels)
        if self._first:
            func.reorder(i, c, j, n).reorder_storage(i, c, j, n).vectorize(i, lanes)
            return
        func.vectorize(c, lanes, MASK if masked else EXACT)
        if not masked and channels <= 4 * lanes:
            func.unroll(c)


class Direct:
    """The inputs read where they are, with the borders of the image apart: for small windows of single channels.

    Args:
        recipe: its operand 0 is the image, [N, H, W, C].
        x: that operand.
        window: how outputs look at it.

    Attributes:
        dense: whether its pixels lie next to each other.
    """

    def __init__(self, recipe: Recipe, x: hl.ImageParam, window: Window) -> None:
        height, width = (extent(x, recipe.operands[0], axis) for axis in (1, 2))
        free = (hl.Expr(), hl.Expr())
        sizes = [free, (hl.i32(0), width), (hl.i32(0), height), free]
        self._x = hl.BoundaryConditions.constant_exterior(x, 0.0, sizes)
        self._window = window
        self.dense = x.dim(1).stride() == int(recipe.operands[0].shape[3] or 0)

    def at(self, c: hl.Expr, i: hl.Expr, j: hl.Expr, n: hl.Expr) -> hl.Expr:
        """Channel c of the pixel in column i and row j, counted from the first one outside; there 0."""
        return hl.Expr(self._x[c, i - self._window.padding[2], j - self._window.padding[0], n])


def split_tiles(
    result: hl.Func, output: Operand, width: int, height: int, *, shift: bool = False
) -> tuple[hl.Var, hl.Var, hl.Var, hl.Var]:
    """Split columns and rows of the output [N, OH, OW, O] into tiles.

    The last tile reaches past the image, or with `shift` starts earlier, which computes some outputs twice.

    Returns:
        The loops from the innermost: column and row in the tile, tile across and down.
    """
    _, i, j, _ = result.args()
    ii, it, ji, jt = (hl.Var(name) for name in ("ii", "it", "ji", "jt"))
    constrain(result.output_buffer(), output)
    for variable, size in zip(result.args(), reversed(output.shape), strict=True):
        if size is not None:
            result.bound(variable, 0, size)
    for size, axis, inner, outer, step in (
        (output.shape[2], i, ii, it, width),
        (output.shape[1], j, ji, jt, height),
    ):
        tail = SHIFT if shift and size is not None and size >= step else GUARD
        result.split(axis, outer, inner, step, EXACT if size is not None and size % step == 0 else tail)
    return ii, ji, it, jt


def split_strips(result: hl.Func, output: Operand, tile: Tile, *, shift: bool = False) -> tuple[hl.Var, ...]:
    """Split columns and rows of the output into tiles, and these into strips.

    Returns:
        The loops of `split_tiles`, the tiles now within a strip, then strip across and down.
    """
    ii, ji, it, jt = split_tiles(result, output, tile.width, tile.height, shift=shift)
    across, down = hl.Var("strip"), hl.Var("band")
    for size, middle, outer, step, count in (
        (output.shape[2], it, across, tile.width, tile.columns),
        (output.shape[1], jt, down, tile.height, tile.rows),
    ):
        even = size is not None and -(-size // step) % count == 0
        result.split(middle, outer, middle, count, EXACT if even else GUARD)
    return ii, ji, it, jt, across, down


def repeatable(extras: Sequence[Operand]) -> bool:
    """Whether an output may be computed twice: no operand has its shape, so that none shares its memory."""
    return all(math.prod(size or 2 for size in operand.shape[:-1]) == 1 for operand in extras)


def host_vectors() -> tuple[int, int]:
    """Lanes of a float32 vector on this host, and how many vector registers it has."""
    lanes = hl.get_host_target().natural_vector_size(hl.Float(32))
    return lanes, 32 if lanes == 16 else 16


def contiguous(parameter: hl.ImageParam, operand: Operand) -> None:
    """Let a buffer of static sizes be contiguous."""
    stride = 1
    for dimension, size in enumerate(reversed(operand.shape)):
        parameter.dim(dimension).set_stride(stride)
        stride *= int(size or 0)


def aligned(
    recipe: Recipe, parameters: list[hl.ImageParam], place: tuple[hl.Var, ...], *, first: int
) -> list[hl.Expr | None]:
    """The element of each operand from number `first` that aligns with the place of the output, innermost first."""
    values: list[hl.Expr | None] = [None] * first
    for number, parameter in enumerate(parameters[first:], first):
        sizes = reversed(recipe.operands[number].shape)
        values.append(parameter[tuple(hl.i32(0) if size == 1 else place[axis] for axis, size in enumerate(sizes))])
    return values
