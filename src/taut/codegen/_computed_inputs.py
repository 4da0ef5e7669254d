"""Inputs of a window that an expression gives, row by row into a ring of rows that stays in the first-level cache.

Each value is computed once, where a strip would compute its edges again, and its channels lie side by side as in the
image, so that images are read along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import halide as hl

from taut.codegen._buffers import extent
from taut.codegen._convolution_staging import (
    EXACT,
    GUARD,
    MASK,
    SHIFT,
    STACK,
    host_vectors,
    repeatable,
    split_tiles,
)
from taut.codegen._convolution_window import Tile, Window, strips
from taut.codegen._recipe import Operand, Recipe

_RING = 32 * 1024  # bytes of the rows that are kept: two thirds of the first-level cache
_TILES = ((7, 2), (8, 2), (4, 2), (2, 2), (7, 1), (8, 1), (4, 1), (5, 1), (3, 1), (2, 1), (1, 2), (1, 1))


class ComputedInputs:
    """The inputs as a function.

    Args:
        recipe: its operand 0 is the image, [N, H, W, C].
        x: that operand.
        window: how outputs look at it.
        value: what the window sees at a channel, column, row and image.
    """

    def __init__(
        self, recipe: Recipe, x: hl.ImageParam, window: Window, value: Callable[[tuple[hl.Var, ...]], hl.Expr]
    ) -> None:
        height, width = (extent(x, recipe.operands[0], axis) for axis in (1, 2))
        free = (hl.Expr(), hl.Expr())
        c, i, j, n = place = tuple(hl.Var(name) for name in "cijn")
        inside, self.func = hl.Func("inside"), hl.Func("ring")
        inside[place] = value(place)
        sizes = [free, (hl.i32(0), width), (hl.i32(0), height), free]
        around = hl.BoundaryConditions.constant_exterior(inside, 0.0, sizes)
        self.func[place] = around[c, i - window.padding[2], j - window.padding[0], n]
        self._window, self._last = window, int(recipe.operands[0].shape[3] or 0) - 1

    def at(self, c: hl.Expr, i: hl.Expr, j: hl.Expr, n: hl.Expr) -> hl.Expr:
        """Channel c of the pixel in column i and row j, counted from the first one outside."""
        # Lanes beyond the last channel are read from the ring, whose pixels have room for them, and not stored.
        return hl.Expr(self.func[hl.unsafe_promise_clamped(c, 0, self._last), i, j, n])

    def schedule(self, result: hl.Func, extras: Sequence[Operand], output: Operand) -> tuple[hl.Var, Tile, bool]:
        """Schedule an output of the window over these inputs, and the ring beside it.

        Returns:
            The loop over the tiles of a row, a tile, and whether vectors of channels are masked.
        """
        c, _, _, n = result.args()
        lanes, registers = host_vectors()
        channels = int(output.shape[3] or 0)
        tile = self._tile(output, lanes, registers)
        ii, ji, it, jt = split_tiles(result, output, tile.width, tile.height)
        across, block, lane = hl.Var("strip"), hl.Var("block"), hl.Var("lane")
        even = output.shape[2] is not None and -(-output.shape[2] // tile.width) % tile.columns == 0
        result.split(it, across, it, tile.columns, EXACT if even else GUARD)
        together = self._together(tile, channels, lanes)
        # Where channels do not fill vectors, the last one starts earlier, unless that would read what is overwritten.
        shift = repeatable(extras) and channels >= lanes
        tail = EXACT if channels % lanes == 0 else SHIFT if shift else MASK
        if together < channels:
            result.split(c, block, c, together, EXACT if channels % together == 0 else tail)
            result.split(c, c, lane, lanes, MASK if tail is MASK else EXACT).vectorize(lane)
            result.reorder(lane, ii, ji, it, c, jt, block, across, n)
        else:
            result.split(c, c, lane, lanes, tail).vectorize(lane)
            result.reorder(lane, ii, ji, it, c, jt, across, n)
        result.unroll(ii).unroll(ji)
        exact = tail is not MASK or together == channels
        self._ring(result, jt, block if together < channels else across, tile, together, lanes, exact=exact)
        return it, tile, tail is MASK

    def _tile(self, output: Operand, lanes: int, registers: int) -> Tile:
        rows, columns = output.shape[1:3]
        fitting = [tile for tile in _TILES if 2 * math.prod(tile) <= registers]
        width, height = min(fitting, key=lambda tile: _waste(columns, tile[0]) * _waste(rows, tile[1]))
        return strips(self._window, lanes, output.shape, width, height, _RING)

    def _rows(self, tile: Tile) -> int:
        """Of the ring: as many as one row of tiles sees, with those that it skips, or more."""
        step = tile.height * self._window.stride[0]
        return 1 << (max(self._window.reach(0, tile.height), step) - 1).bit_length()

    def _together(self, tile: Tile, channels: int, lanes: int) -> int:
        """How many channels one ring holds: all of them, or whole vectors."""
        vector = self._rows(tile) * self._window.reach(1, tile.columns * tile.width) * lanes * 4
        fitting = max(_RING // vector, 1)
        if fitting * lanes >= channels:
            return channels
        most = min(fitting, channels // lanes)
        return lanes * min(range(most, 0, -1), key=lambda count: -(-channels // (count * lanes)) * count)

    def _ring(
        self, result: hl.Func, at: hl.Var, kept: hl.Var, tile: Tile, together: int, lanes: int, *, exact: bool
    ) -> None:
        """Schedule the ring; `exact` where no block of channels is smaller than the others."""
        c, i, j, _ = self.func.args()
        vectors, columns, rows = (
            -(-together // lanes),
            self._window.reach(1, tile.columns * tile.width),
            self._rows(tile),
        )
        ring = self.func.compute_at(result, at).store_at(result, kept)
        if rows * columns * vectors * lanes * 4 <= STACK:
            ring.store_in(hl.MemoryType.Stack)
        ring.bound_extent(i, columns).fold_storage(j, rows).bound_storage(c, vectors * lanes)
        ring.vectorize(c, lanes, MASK if together < lanes or not exact else SHIFT if together % lanes else EXACT)
        if vectors <= 8:
            ring.unroll(c)


def _waste(size: int | None, step: int) -> float:
    return -(-size // step) * step / size if size else 1.0
