"""Random control flow, and sizes that depend on data."""

from __future__ import annotations

import torch
from fuzz_draft import Draft, Fact, Item
from fuzz_pointwise import binary, unary

from taut.compile._dims import product
from taut.graph import Graph, ScalarType, SymbolRange, symbol

_TRUTH = Fact(1.0, 0.0, 1.0)


def branch(draft: Draft) -> Item | None:
    """One of two regions, picked by a value."""
    x = draft.pick_float()
    chosen = draft.pick(lambda item: item.exact and item.dtype != torch.bool)
    if x is None or chosen is None or draft.depth:
        return None
    if chosen.rank:
        total = draft.add(
            "aten.amax.default" if chosen.is_float and draft.lowest(*chosen.shape) > 0 else "aten.sum.default",
            chosen,
            shape=(),
            dtype=torch.float32 if chosen.is_float else torch.int64,
            fact=chosen.fact.summed(max(1, draft.highest(*chosen.shape))),
        )
        if total is None or not total.exact:
            return None
        chosen = total
    predicate = draft.add("aten.gt.Scalar", chosen, 0, shape=(), dtype=torch.bool, fact=_TRUTH)
    other = draft.pick_float() or x
    regions, facts = zip(*(_region(draft, x, other) for _ in range(2)), strict=True)
    fact = facts[0] | facts[1]
    found = draft.add_many("cond", predicate, [x, other], outputs=[(x.shape, x.dtype, fact)], regions=regions)
    return found[0] if found else None


def _region(outer: Draft, x: Item, other: Item) -> tuple[Graph, Fact]:
    draft = Draft(outer.draw, outer.symbols, outer)
    first = draft.input(x.shape, x.dtype, x.fact)
    draft.input(other.shape, other.dtype, other.fact)
    found = first
    for _ in range(draft.integer(0, 2)):
        made = draft.choose((unary, binary))(draft)
        found = made if made is not None and made.shape == x.shape and made.is_float else found
    return draft.builder.finish((found.ref,)), found.fact


def loop(draft: Draft) -> Item | None:
    """A fixed number of rounds."""
    x = draft.pick_float()
    if x is None or draft.depth:
        return None
    start = draft.constant((), torch.int64)
    draft.items.append(start)
    rounds = draft.integer(-3, 2)  # the start is -3 to 3, so there may be none
    condition = Draft(draft.draw, draft.symbols, draft)
    count = condition.input((), torch.int64, start.fact)
    condition.input(x.shape, x.dtype, x.fact)
    going = condition.add("aten.lt.Scalar", count, rounds, shape=(), dtype=torch.bool, fact=_TRUTH)
    body = Draft(draft.draw, draft.symbols, draft)
    count, carried = body.input((), torch.int64, start.fact), body.input(x.shape, x.dtype, x.fact)
    following = body.add("aten.add.Tensor", count, 1, shape=(), dtype=torch.int64, fact=Fact(4.0, 0.0, 1.0))
    half = body.add("aten.mul.Tensor", carried, 0.5, shape=x.shape, fact=x.fact)
    assert going is not None and following is not None and half is not None
    result = body.add("aten.add.Tensor", half, 0.25, shape=x.shape, fact=x.fact) if body.chance() else half
    assert result is not None
    fact = Fact(x.fact.bound + 1, x.fact.error + 6 * (x.fact.bound + 1))
    regions = (condition.builder.finish((going.ref,)), body.builder.finish((following.ref, result.ref)))
    found = draft.add_many(
        "while_loop",
        [start, x],
        [],
        outputs=[((), torch.int64, Fact(5.0, 0.0, 1.0)), (x.shape, x.dtype, fact)],
        regions=regions,
    )
    return found[1] if found else None


def nonzero(draft: Draft) -> Item | None:
    """Where a mask holds, and the values there."""
    mask = draft.pick(lambda item: item.dtype == torch.bool and 1 <= item.rank <= 3)
    if mask is None or draft.depth:
        return None
    count = symbol(f"u{len(draft.symbols)}")
    most = product(mask.shape)
    draft.symbols[str(count)] = SymbolRange(0, draft.highest(*mask.shape), backed=False)
    found = draft.add(
        "aten.nonzero.default", mask, shape=(count, mask.rank), dtype=torch.int64, fact=Fact(32.0, 0.0, 1.0)
    )
    assert found is not None
    size = draft.size(count)
    limit = draft.builder.add("sym.le", size, draft.size(most), outputs=ScalarType("bool", count <= most))
    draft.builder.add("check", limit, f"{count} <= {most}", outputs=())
    x = draft.pick_float(lambda item: item.shape[: mask.rank] == mask.shape)
    if x is None or draft.chance():
        return found
    rows = draft.add("aten.select.int", found, 1, 0, shape=(count,), dtype=torch.int64, fact=found.fact)
    return draft.add("aten.index.Tensor", x, [rows], shape=(count, *x.shape[1:]), fact=x.fact)
