"""Matrix products in register tiles.

The M rows are split into tiles of at most R rows whose heights differ by at most one: ceil(M / R) tiles of height
floor or ceil of their average. There is one body for each height 1..R, each with its accumulators in registers, and
for any M at most two of them run. So no row is computed twice, and no tile is much lower than the best.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import halide as hl

from taut.codegen._buffers import wide_vectors
from taut.codegen._linear import TILE_ROWS, VECTOR

_NARROW_ROWS = 6  # of a tile of 16 columns: 12 accumulators of AVX2, 24 of NEON
_LEAST_CHAINS = 8  # accumulations that must be under way to hide the latency of one


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The tiles of one height: how many, and the row where the first begins."""

    height: int
    count: hl.Expr
    start: hl.Expr


@dataclasses.dataclass(frozen=True)
class Product:
    """A product whose right side comes in blocks of columns.

    Attributes:
        rows: M.
        n: N.
        columns: of a block.
        width: how many of them are stored.
        first: the number of the first block.
        blocks: how many.
        depth: K, and the same where it is static.
        left: the element at (k, row).
        right: the element at (column of the block, k, block).
        value: what is stored, from (column, row, sum).
        outer: pure variables around the product, e.g. a batch.
    """

    rows: hl.Expr
    n: hl.Expr
    columns: int
    width: int
    first: int
    blocks: hl.Expr
    depth: tuple[hl.Expr, int | None]
    left: Callable[[hl.Expr, hl.Expr], hl.Expr]
    right: Callable[[hl.Expr, hl.Expr, hl.Expr], hl.Expr]
    value: Callable[[hl.Expr, hl.Expr, hl.Expr], hl.Expr]
    outer: tuple[hl.Var, ...] = ()


def tile_rows(columns: int) -> int:
    """The height of the highest tile for a block of so many columns."""
    return TILE_ROWS[max(columns // VECTOR, 1)] if wide_vectors() else _NARROW_ROWS


def balanced_tiles(rows: hl.Expr, static: int | None, highest: int) -> list[Tiles]:
    """The tiles of each height that `rows` rows may need, the higher ones first.

    Args:
        rows: how many rows there are.
        static: the same where it is known.
        highest: rows of the highest tile.
    """
    if static is not None:
        number = -(-static // highest)
        if number == 0:
            return []
        base, higher = divmod(static, number)
        plan = [(base + 1, higher, 0), (base, number - higher, higher * (base + 1))]
        return [Tiles(height, hl.i32(count), hl.i32(start)) for height, count, start in plan if count]
    number = (rows + (highest - 1)) / highest
    least = hl.max(number, 1)
    base = rows / least
    higher = rows % least
    tiles = []
    for height in range(highest, 0, -1):
        count = hl.select(base + 1 == height, higher, base == height, number - higher, 0)
        start = hl.select(base == height, higher * (base + 1), 0)
        tiles.append(Tiles(height, count, start))
    return tiles


def add_tiles(product: Product, result: hl.Func, tiles: Tiles, stage: int) -> None:
    """Let update number `stage` of the result, of (column, row, *outer), compute the tiles of one height."""
    height, outer = tiles.height, product.outer
    vector = min(product.columns, VECTOR)
    columns = -(-product.width // vector) * vector
    depth, static_depth = product.depth
    chains = _chains(height * (columns // vector), static_depth)

    def row(tile: hl.Expr, line: hl.Expr) -> hl.Expr:
        return hl.unsafe_promise_clamped(tiles.start + tile * height + line, 0, product.rows - 1)

    c, line, chain, tile, block = (hl.Var(name) for name in ("c", "line", "chain", "tile", "block"))
    sums = hl.Func(f"sums{stage}")
    k = hl.RDom([(0, depth / chains)], f"k{stage}")
    place = k.x * chains + chain
    at = (c, line, chain, tile, block, *outer)
    sums[at] = hl.f32(0.0)
    sums[at] += product.left(place, row(tile, line)) * product.right(c, place, block + product.first)

    r = hl.RDom([(0, product.width), (0, height), (0, tiles.count), (0, product.blocks)], f"r{stage}")
    column = hl.unsafe_promise_clamped((r.w + product.first) * product.columns + r.x, 0, product.n - 1)
    total = hl.Expr(sums[(r.x, r.y, 0, r.z, r.w, *outer)])
    for number in range(1, chains):
        total += sums[(r.x, r.y, number, r.z, r.w, *outer)]
    target = row(r.z, r.y)
    result[(column, target, *outer)] = product.value(column, target, total)

    split, lanes = hl.RVar(f"split{stage}"), hl.RVar(f"lanes{stage}")
    update = result.update(stage).allow_race_conditions()
    tail = hl.TailStrategy.Predicate if product.width % vector else hl.TailStrategy.Auto
    update.split(r.x, split, lanes, vector, tail).reorder(lanes, split, r.y, r.z, r.w, *outer)
    update.vectorize(lanes).unroll(split).unroll(r.y)
    sums.compute_at(result, r.z).store_in(hl.MemoryType.Register)
    sums.bound(c, 0, columns).bound(line, 0, height).bound(chain, 0, chains)
    sums.vectorize(c, vector).unroll(c).unroll(line).unroll(chain)
    inner = hl.Var("inner")
    accumulate = sums.update()
    accumulate.split(c, c, inner, vector).reorder(inner, c, line, chain, k.x, tile, block, *outer)
    accumulate.vectorize(inner).unroll(c).unroll(line).unroll(chain)


def _chains(accumulators: int, depth: int | None) -> int:
    chains = 1
    while depth is not None and accumulators * chains < _LEAST_CHAINS and depth % (2 * chains) == 0:
        chains *= 2
    return chains
