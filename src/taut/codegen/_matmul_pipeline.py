"""The pipeline of the template "matmul".

For each product of the batch, the right side is first copied into dense blocks of columns; the sums go to a scratch,
and the expression is a last pass over them.
"""

from __future__ import annotations

import halide as hl

from taut.codegen._buffers import constrain, extent, inputs, wide_vectors
from taut.codegen._expression import aligned, convert, evaluate
from taut.codegen._linear import VECTOR, packed_shape
from taut.codegen._recipe import Operand, Recipe
from taut.codegen._tiles import Product, add_tiles, balanced_tiles, tile_rows

_DYNAMIC_COLUMNS = 2 * VECTOR


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """See `taut.codegen._templates.pipeline`."""
    parameters = inputs(recipe)
    a, b = parameters[:2]
    operands = recipe.operands
    space = operands[-1]
    i, j, batch = hl.Var("i"), hl.Var("j"), hl.Var("batch")
    result, sums = hl.Func("result"), hl.Func("products")
    rows, n = extent(a, operands[0], 1), extent(b, operands[1], 2)
    depth, static_depth = extent(a, operands[0], 2), operands[0].shape[2]
    static_n = operands[1].shape[2]
    columns = packed_shape(1, static_n)[2] if static_n else _DYNAMIC_COLUMNS
    if not wide_vectors():
        columns = min(columns, VECTOR)
    packed = _pack(b, operands[1], n, columns, batch)
    sums[i, j, batch] = hl.undef(hl.Float(32))
    blocks = (n + (columns - 1)) / columns
    product = Product(
        rows=rows,
        n=blocks * columns,
        columns=columns,
        width=columns,
        first=0,
        blocks=blocks,
        depth=(depth, static_depth),
        left=lambda k, row: aligned(a, operands[0], (k, row, batch)),
        right=lambda c, k, block: hl.Expr(packed[c, k, block, batch]),
        value=lambda _column, _row, total: total,
        outer=(batch,),
    )
    for stage, tiles in enumerate(balanced_tiles(rows, operands[0].shape[1], tile_rows(columns))):
        add_tiles(product, sums, tiles, stage)
    elements: list[hl.Expr | None] = [None, None]
    for parameter, operand in zip(parameters[2:], operands[2:-1], strict=True):
        elements.append(aligned(parameter, operand, (i, j, batch)))
    value = evaluate(recipe.expression, elements, accumulator=hl.Expr(sums[i, j, batch]))[-1]
    result[i, j, batch] = convert(value, space.dtype)
    result.vectorize(i, min(columns, VECTOR), hl.TailStrategy.Predicate)
    sums.align_bounds(i, columns)
    for func in (packed, sums):
        func.compute_at(result, batch).hoist_storage_root()
    constrain(result.output_buffer(), space)
    # Sizes that the sides share must agree; the kernel refuses others.
    b.dim(1).set_extent(depth)
    result.output_buffer().dim(0).set_extent(n)
    result.output_buffer().dim(1).set_extent(rows)
    return hl.Pipeline(result), parameters


def _pack(b: hl.ImageParam, operand: Operand, n: hl.Expr, columns: int, batch: hl.Var) -> hl.Func:
    c, k, block = hl.Var("c"), hl.Var("k"), hl.Var("block")
    packed = hl.Func("packed")
    # Columns beyond the end repeat the last one; what comes of them is not stored.
    last = hl.unsafe_promise_clamped(hl.min(block * columns + c, n - 1), 0, n - 1)
    if operand.dense:
        r = hl.RDom([(0, columns)], "c")
        r.where(block * columns + r.x < n)
        packed[c, k, block, batch] = hl.undef(hl.Float(32))
        column = hl.unsafe_promise_clamped(block * columns + r.x, 0, n - 1)
        packed[r.x, k, block, batch] = aligned(b, operand, (column, k, batch))
        split, lanes = hl.RVar("split"), hl.RVar("lanes")
        update = packed.update().allow_race_conditions()
        update.split(r.x, split, lanes, min(columns, VECTOR)).vectorize(lanes).unroll(split)
    else:
        packed[c, k, block, batch] = aligned(b, operand, (last, k, batch))
        packed.reorder(k, c, block, batch)
    return packed.bound(c, 0, columns)
