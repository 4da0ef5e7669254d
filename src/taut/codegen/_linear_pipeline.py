"""The pipeline of the template "linear"."""

from __future__ import annotations

import dataclasses

import halide as hl

from taut.codegen._buffers import TYPES, constrain, extent, inputs, wide_vectors
from taut.codegen._expression import aligned, convert, evaluate
from taut.codegen._linear import VECTOR
from taut.codegen._recipe import Recipe, is_heavy
from taut.codegen._tiles import Product, add_tiles, balanced_tiles, tile_rows


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """See `taut.codegen._templates.pipeline`."""
    parameters = inputs(recipe)
    x, weights = parameters[:2]
    space = recipe.operands[-1]
    blocks, depth, columns = recipe.operands[1].shape
    n = space.shape[1]
    assert blocks is not None and depth is not None and columns is not None and n is not None
    i, j = hl.Var("i"), hl.Var("j")
    result = hl.Func("result")
    # A costly expression gets a pass of its own over the sums: beside the product, its constants would take the
    # registers of the accumulators.
    heavy = is_heavy(recipe.expression)
    target = hl.Func("sums") if heavy and space.dtype != "float32" else result
    target[i, j] = hl.undef(hl.Float(32) if heavy else TYPES[space.dtype])
    rows = extent(x, recipe.operands[0], 0)

    def finish(column: hl.Expr, row: hl.Expr, total: hl.Expr) -> hl.Expr:
        elements: list[hl.Expr | None] = [None, None]
        for parameter, operand in zip(parameters[2:], recipe.operands[2:-1], strict=True):
            elements.append(aligned(parameter, operand, (column, row)))
        return convert(evaluate(recipe.expression, elements, accumulator=total)[-1], space.dtype)

    # Fewer or narrower registers hold less of a block at once.
    chunk = columns if wide_vectors() else min(columns, VECTOR)
    chunks = columns // chunk
    product = Product(
        rows=rows,
        n=hl.i32(n),
        columns=chunk,
        width=chunk,
        first=0,
        blocks=hl.i32(n // chunk),
        depth=(hl.i32(depth), depth),
        left=lambda k, row: x[k, row],
        right=lambda c, k, block: weights[block % chunks * chunk + c, k, block / chunks],
        value=(lambda _column, _row, total: total) if heavy else finish,
    )
    last_block = dataclasses.replace(product, width=n % chunk, first=n // chunk, blocks=hl.i32(1))
    products = [product] * (n >= chunk) + [last_block] * (n % chunk > 0)
    plan = balanced_tiles(rows, space.shape[0], tile_rows(columns))
    stages = [(part, tiles) for part in products for tiles in plan]
    for stage, (part, tiles) in enumerate(stages):
        add_tiles(part, target, tiles, stage)
    if heavy:
        result[i, j] = finish(i, j, hl.Expr(target[i, j]))
        last = result.update(len(stages)) if target is result else result
        # Loads as wide as the stores before them, or they wait until those have reached the cache.
        last.vectorize(i, min(columns, VECTOR), hl.TailStrategy.Predicate)
        if target is not result:
            target.compute_root()
    constrain(result.output_buffer(), space)
    result.output_buffer().dim(1).set_extent(rows)
    return hl.Pipeline(result), parameters
