"""The pipeline of the template "attention".

Sixteen query rows lie in the lanes of a vector: scores, maxima, exponentials and their sums then need no operation
across lanes, and keys are read as scalars where they lie. For the product with the values, columns lie in the lanes.

Legend: t query row, s key, d column of a head, h head, b batch.
"""

from __future__ import annotations

import halide as hl

from taut.codegen._buffers import constrain, extent, inputs
from taut.codegen._expression import aligned
from taut.codegen._math import exp
from taut.codegen._recipe import Operand, Recipe

_ROWS = 16
_KEYS = 12  # of a tile of scores: its accumulators fill the registers
_ACCUMULATORS = 24
_LOWEST = -3.4e38  # of a masked key; LLVM may assume that no infinity occurs


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """See `taut.codegen._templates.pipeline`."""
    parameters = inputs(recipe)
    q, k, v = parameters[:3]
    view = recipe.operands[0]
    head_size = view.shape[3]
    assert head_size is not None
    queries, keys = extent(q, view, 2), extent(k, view, 2)
    causal = bool(recipe.parameters["causal"])

    d, t, h, b, lane, block, s = (hl.Var(name) for name in ("d", "t", "h", "b", "lane", "block", "s"))
    place = (block, h, b)
    turned = hl.Func("turned")
    row = _last_again(block * _ROWS + lane, queries)
    turned[(lane, d, *place)] = q[d, row, h, b] * hl.f32(recipe.parameters["scale"])

    dot = hl.Func("dot")
    key = _last_again(s, keys)
    column = hl.RDom([(0, head_size)], "column")
    dot[(lane, s, *place)] = hl.f32(0.0)
    dot[(lane, s, *place)] += turned[(lane, column.x, *place)] * k[column.x, key, h, b]

    seen = keys if not causal else hl.min(keys, block * _ROWS + _ROWS)
    score = hl.Func("score")
    value = hl.Expr(dot[(lane, s, *place)])
    if len(recipe.operands) == 5:
        value = _masked(value, parameters[3], recipe.operands[3], key, row, h, b)
    if causal:
        value = hl.select(s > block * _ROWS + lane, hl.f32(_LOWEST), value)
    score[(lane, s, *place)] = value

    every = hl.RDom([(0, keys)], "every")
    every.where(every.x < seen)
    largest = hl.Func("largest")
    largest[(lane, *place)] = hl.f32(_LOWEST)
    largest[(lane, *place)] = hl.max(largest[(lane, *place)], score[(lane, every.x, *place)])
    highest = hl.Expr(largest[(lane, *place)])
    shift = hl.select(highest <= hl.f32(_LOWEST), hl.f32(0.0), highest)
    weight = hl.Func("weight")
    weight[(lane, s, *place)] = exp(hl.Expr(score[(lane, s, *place)]) - shift, at_most_one=True)
    total = hl.Func("total")
    total[(lane, *place)] = hl.f32(0.0)
    total[(lane, *place)] += weight[(lane, every.x, *place)]
    inverse = hl.Func("inverse")
    norm = hl.Expr(total[(lane, *place)])
    inverse[(lane, *place)] = hl.select(norm == hl.f32(0.0), hl.f32(0.0), hl.f32(1.0) / norm)

    vector = next(width for width in (16, 8, 4, 2, 1) if head_size % width == 0)
    group = _group(head_size // vector)
    summed = hl.Func("summed")
    member = hl.Var("member")
    part = hl.Var("part")
    sk = hl.RDom([(0, keys)], "sk")
    sk.where(sk.x < seen)
    summed[(d, member, part, *place)] = hl.f32(0.0)
    summed[(d, member, part, *place)] += weight[(part * group + member, sk.x, *place)] * v[d, sk.x, h, b]

    result = hl.Func("result")
    result[d, t, h, b] = hl.undef(hl.Float(32))
    r = hl.RDom([(0, head_size), (0, group), (0, _ROWS // group), (0, (queries + (_ROWS - 1)) / _ROWS)], "r")
    line = r.z * group + r.y
    at = r.w * _ROWS + line
    r.where(at < queries)
    promised = hl.unsafe_promise_clamped(at, 0, queries - 1)
    result[r.x, promised, h, b] = summed[r.x, r.y, r.z, r.w, h, b] * inverse[line, r.w, h, b]
    constrain(result.output_buffer(), recipe.operands[-1])

    outer, lanes = hl.RVar("outer"), hl.RVar("lanes")
    update = result.update().allow_race_conditions()
    update.split(r.x, outer, lanes, vector).reorder(lanes, outer, r.y, r.z, r.w, h, b)
    update.vectorize(lanes).unroll(outer).unroll(r.y)
    summed.compute_at(result, r.z).store_in(hl.MemoryType.Register)
    summed.bound(d, 0, head_size).bound(member, 0, group)
    summed.vectorize(d, vector).unroll(d).unroll(member)
    accumulate = summed.update()
    inner = hl.Var("inner")
    accumulate.split(d, d, inner, vector).reorder(inner, d, member, sk.x, part, *place)
    accumulate.vectorize(inner).unroll(d).unroll(member)
    for func in (inverse, total, largest, turned):
        func.compute_at(result, r.w).bound(lane, 0, _ROWS).vectorize(lane, _ROWS).store_in(hl.MemoryType.Stack)
    for func in (total, largest):
        func.update().reorder(lane, every.x, *place).vectorize(lane, _ROWS)
    for func in (weight, score):
        func.compute_at(result, r.w).hoist_storage_root().bound(lane, 0, _ROWS).vectorize(lane, _ROWS)
    so, si = hl.Var("so"), hl.Var("si")
    score.split(s, so, si, _KEYS, hl.TailStrategy.RoundUp).reorder(lane, si, so, *place).unroll(si)
    dot.compute_at(score, so).store_in(hl.MemoryType.Register).bound(lane, 0, _ROWS)
    dot.vectorize(lane, _ROWS).unroll(s)
    dot.update().reorder(lane, s, column.x, *place).vectorize(lane, _ROWS).unroll(s)
    return hl.Pipeline(result), parameters


def _masked(
    value: hl.Expr, mask: hl.ImageParam, operand: Operand, s: hl.Expr, t: hl.Expr, h: hl.Expr, b: hl.Expr
) -> hl.Expr:
    element = aligned(mask, operand, (s, t, h, b))
    return hl.select(element, value, hl.f32(_LOWEST)) if operand.dtype == "bool" else value + element


def _last_again(number: hl.Expr, size: hl.Expr) -> hl.Expr:
    # Rows and keys beyond the end repeat the last one, and what comes of them is not used. The promise covers size 0.
    return hl.unsafe_promise_clamped(hl.min(number, size - 1), 0, size - 1)


def _group(vectors: int) -> int:
    group = _ROWS
    while group > 1 and group * vectors > _ACCUMULATORS:
        group //= 2
    return group
