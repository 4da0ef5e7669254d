"""The pipeline of the template "linear".

The M rows are split into tiles of at most R rows whose heights differ by at most one: ceil(M / R) tiles of height
floor or ceil of their average. There is one body for each height 1..R, each with its accumulators in registers, and
for any M at most two of them run. So no row is computed twice, and no tile is much lower than the best.
"""

from __future__ import annotations

import dataclasses

import halide as hl

from taut.codegen._buffers import TYPES, constrain, extent, inputs
from taut.codegen._expression import convert, evaluate, is_heavy
from taut.codegen._linear import TILE_ROWS, VECTOR
from taut.codegen._recipe import Recipe

_SUMS = (("accumulator",),)
_LEAST_CHAINS = 8  # accumulations that must be under way to hide the latency of one


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The tiles of one height: how many, and the row where the first begins."""

    height: int
    count: hl.Expr
    start: hl.Expr


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


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """See `taut.codegen._templates.pipeline`."""
    parameters = inputs(recipe)
    space = recipe.operands[-1]
    i, j = hl.Var("i"), hl.Var("j")
    result = hl.Func("result")
    # A costly expression gets a pass of its own over the sums: beside the product, its constants would take the
    # registers of the accumulators.
    heavy = is_heavy(recipe.expression)
    target = hl.Func("sums") if heavy and space.dtype != "float32" else result
    target[i, j] = hl.undef(hl.Float(32) if heavy else TYPES[space.dtype])
    rows = extent(result.output_buffer(), space, 0)
    columns = recipe.operands[1].shape[2]
    assert columns is not None
    highest = TILE_ROWS[max(columns // VECTOR, 1)]
    plan = balanced_tiles(rows, space.shape[0], highest)
    if heavy:
        for stage, tiles in enumerate(plan):
            _add_tiles(dataclasses.replace(recipe, expression=_SUMS), parameters, target, rows, tiles, stage)
        value = _value(recipe, parameters, i, j, hl.Expr(target[i, j]))
        result[i, j] = convert(value, space.dtype)
        last = result.update(len(plan)) if target is result else result
        # Loads as wide as the stores before them, or they wait until those have reached the cache.
        last.vectorize(i, min(columns, VECTOR), hl.TailStrategy.Predicate)
        if target is not result:
            target.compute_root()
    else:
        for stage, tiles in enumerate(plan):
            _add_tiles(recipe, parameters, result, rows, tiles, stage)
    constrain(result.output_buffer(), space)
    return hl.Pipeline(result), parameters


def _value(
    recipe: Recipe, parameters: list[hl.ImageParam], column: hl.Expr, row: hl.Expr, accumulator: hl.Expr
) -> hl.Expr:
    elements: list[hl.Expr | None] = [None, None]
    for parameter, operand in zip(parameters[2:], recipe.operands[2:-1], strict=True):
        elements.append(parameter[_aligned(operand.shape, column, row)])
    return evaluate(recipe.expression, elements, accumulator=accumulator)[-1]


def _add_tiles(
    recipe: Recipe, parameters: list[hl.ImageParam], result: hl.Func, rows: hl.Expr, tiles: Tiles, stage: int
) -> None:
    x, weights = parameters[:2]
    space = recipe.operands[-1]
    blocks, depth, columns = recipe.operands[1].shape
    n = space.shape[1]
    assert blocks is not None and depth is not None and columns is not None and n is not None
    height = tiles.height
    vector = min(columns, VECTOR)
    chains = _chains(height * (columns // vector), depth)

    def row(tile: hl.Expr, line: hl.Expr) -> hl.Expr:
        return hl.unsafe_promise_clamped(tiles.start + tile * height + line, 0, rows - 1)

    c, line, chain, tile, block = (hl.Var(name) for name in ("c", "line", "chain", "tile", "block"))
    sums = hl.Func(f"sums{height}")
    k = hl.RDom([(0, depth // chains)], f"k{height}")
    sums[c, line, chain, tile, block] = hl.f32(0.0)
    place = k.x * chains + chain
    sums[c, line, chain, tile, block] += x[place, row(tile, line)] * weights[c, place, block]

    r = hl.RDom([(0, columns), (0, height), (0, tiles.count), (0, blocks)], f"r{height}")
    column = r.w * columns + r.x
    if n % columns:
        r.where(column < n)
        column = hl.unsafe_promise_clamped(column, 0, n - 1)
    total = hl.Expr(sums[r.x, r.y, 0, r.z, r.w])
    for number in range(1, chains):
        total += sums[r.x, r.y, number, r.z, r.w]
    at = row(r.z, r.y)
    result[column, at] = hl.cast(result.type(), _value(recipe, parameters, column, at, total))

    outer, lanes = hl.RVar(f"outer{height}"), hl.RVar(f"lanes{height}")
    update = result.update(stage).allow_race_conditions()
    update.split(r.x, outer, lanes, vector).vectorize(lanes)
    update.unroll(outer).unroll(r.y)
    sums.compute_at(result, r.z).store_in(hl.MemoryType.Register)
    sums.bound(c, 0, columns).bound(line, 0, height).bound(chain, 0, chains)
    sums.vectorize(c, vector).unroll(c).unroll(line).unroll(chain)
    inner = hl.Var("inner")
    accumulate = sums.update()
    accumulate.split(c, c, inner, vector).reorder(inner, c, line, chain, k.x, tile, block)
    accumulate.vectorize(inner).unroll(c).unroll(line).unroll(chain)


def _chains(accumulators: int, depth: int) -> int:
    chains = 1
    while accumulators * chains < _LEAST_CHAINS and depth % (2 * chains) == 0:
        chains *= 2
    return chains


def _aligned(shape: tuple[int | None, ...], column: hl.Expr, row: hl.Expr) -> tuple[hl.Expr, ...]:
    places = (column, row)[: len(shape)]
    return tuple(hl.i32(0) if size == 1 else place for size, place in zip(reversed(shape), places, strict=True))
