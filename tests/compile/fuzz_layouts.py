"""Random operators that move elements: views, slices, joins."""

from __future__ import annotations

import sys

import sympy
import torch
from fuzz_draft import Draft, Fact, Item
from fuzz_pointwise import broadcast

from taut.graph import Dim


def reshape(draft: Draft) -> Item | None:
    """Two dimensions merged, one split, or all flattened."""
    x = draft.pick(lambda item: item.rank > 0)
    if x is None:
        return None
    kind = draft.choose(("merge", "split", "flatten"))
    sizes = list(x.shape)
    axis = draft.integer(0, x.rank - 1)
    if kind == "flatten":
        sizes = [sympy.prod(x.shape)]
    elif kind == "merge":
        if axis + 1 == x.rank:
            return None
        sizes[axis : axis + 2] = [x.shape[axis] * x.shape[axis + 1]]
    else:
        whole = x.shape[axis]
        parts = [part for part in (1, 2, 4) if isinstance(whole, int) and whole % part == 0]
        if not parts or not isinstance(whole, int):
            return None
        part = draft.choose(parts)
        sizes[axis : axis + 1] = [part, whole // part] if draft.chance() else [whole // part, part]
    args = [draft.size(size) for size in sizes]
    unknown = [index for index, size in enumerate(sizes) if not isinstance(size, int)]
    if len(unknown) == 1 and draft.lowest(*sizes) > 0 and draft.chance():
        args[unknown[0]] = -1
    if draft.chance():
        x = draft.add("aten.clone.default", x, shape=x.shape, dtype=x.dtype, fact=x.fact) or x
    return draft.add("aten.reshape.default", x, args, shape=sizes, dtype=x.dtype, fact=x.fact)


def reorder(draft: Draft) -> Item | None:
    """Permute, transpose."""
    x = draft.pick(lambda item: item.rank > 1)
    if x is None:
        return None
    if draft.chance():
        a, b = draft.integer(0, x.rank - 1), draft.integer(-x.rank, x.rank - 1)
        order = list(range(x.rank))
        order[a], order[b] = order[b], order[a]
        shape = [x.shape[axis] for axis in order]
        return draft.add("aten.transpose.int", x, a, b, shape=shape, dtype=x.dtype, fact=x.fact)
    order = list(range(x.rank))
    for axis in range(x.rank - 1):
        other = draft.integer(axis, x.rank - 1)
        order[axis], order[other] = order[other], order[axis]
    shape = [x.shape[axis] for axis in order]
    return draft.add("aten.permute.default", x, order, shape=shape, dtype=x.dtype, fact=x.fact)


def widen(draft: Draft) -> Item | None:
    """Unsqueeze, squeeze, expand, repeat."""
    x = draft.pick(lambda item: item.rank < 5)
    if x is None:
        return None
    kind = draft.choose(("unsqueeze", "squeeze", "expand", "repeat"))
    if kind == "unsqueeze":
        axis = draft.integer(0, x.rank)
        shape = [*x.shape[:axis], 1, *x.shape[axis:]]
        return draft.add("aten.unsqueeze.default", x, axis, shape=shape, dtype=x.dtype, fact=x.fact)
    if kind == "squeeze":
        ones = [axis for axis, size in enumerate(x.shape) if size == 1]
        if not ones:
            return None
        axis = draft.choose(ones)
        shape = [size for index, size in enumerate(x.shape) if index != axis]
        return draft.add("aten.squeeze.dim", x, axis, shape=shape, dtype=x.dtype, fact=x.fact)
    if kind == "repeat":
        if x.rank == 0:
            return None
        times = [draft.integer(1, 2) for _ in x.shape]
        shape = [size * count for size, count in zip(x.shape, times, strict=True)]
        return draft.add("aten.repeat.default", x, times, shape=shape, dtype=x.dtype, fact=x.fact)
    like = draft.pick(lambda item: broadcast(x.shape, item.shape) == item.shape)
    if like is None:
        return None
    missing = like.rank - x.rank
    args = [
        -1 if axis >= missing and x.shape[axis - missing] == size else draft.size(size)
        for axis, size in enumerate(like.shape)
    ]
    return draft.add("aten.expand.default", x, args, shape=like.shape, dtype=x.dtype, fact=x.fact)


def part(draft: Draft) -> Item | None:
    """Slice, select."""
    x = draft.pick(lambda item: item.rank > 0)
    if x is None:
        return None
    axis = draft.integer(0, x.rank - 1)
    size, least = x.shape[axis], draft.lowest(x.shape[axis])
    if draft.chance():
        if least == 0:
            return None
        index = draft.choose([0, -1, least - 1])
        shape = [other for position, other in enumerate(x.shape) if position != axis]
        return draft.add("aten.select.int", x, axis, index, shape=shape, dtype=x.dtype, fact=x.fact)
    start = draft.integer(0, min(2, least))
    step = draft.choose((1, 1, 2)) if isinstance(size, int) else 1
    if isinstance(size, int):
        stop: int = draft.choose([size, size - 1, -1, sys.maxsize])
        length: Dim = len(range(size)[start:stop:step])
    else:
        stop, length = sys.maxsize, size - start
        if least > start and draft.chance():
            stop, length = -1, size - start - 1
    shape = [*x.shape[:axis], length, *x.shape[axis + 1 :]]
    return draft.add("aten.slice.Tensor", x, axis, start, stop, step, shape=shape, dtype=x.dtype, fact=x.fact)


def parts(draft: Draft) -> Item | None:
    """Split, unbind: several results."""
    x = draft.pick(lambda item: any(isinstance(size, int) and size > 0 for size in item.shape))
    if x is None:
        return None
    axis = draft.choose([axis for axis, size in enumerate(x.shape) if isinstance(size, int) and size > 0])
    size = x.shape[axis]
    assert isinstance(size, int)
    kind = draft.choose(("split", "split_with_sizes", "unbind"))
    if kind == "unbind":
        if size > 4:
            return None
        shape = [other for position, other in enumerate(x.shape) if position != axis]
        return draft.add_many("aten.unbind.int", x, axis, outputs=[(shape, x.dtype, x.fact)] * size)[0]
    if kind == "split":
        width = draft.integer(1, size)
        widths = [width] * (size // width) + ([size % width] if size % width else [])
        argument = width
    else:
        cut = draft.integer(0, size)
        widths = [cut, size - cut]
        argument = widths
    if len(widths) > 4:
        return None
    shapes = [[*x.shape[:axis], width, *x.shape[axis + 1 :]] for width in widths]
    op = "aten.split.Tensor" if kind == "split" else "aten.split_with_sizes.default"
    return draft.add_many(op, x, argument, axis, outputs=[(shape, x.dtype, x.fact) for shape in shapes])[-1]


def join(draft: Draft) -> Item | None:
    """Cat, stack."""
    x = draft.pick(lambda item: item.rank > 0)
    if x is None:
        return None
    axis = draft.integer(0, x.rank - 1)
    stacked = draft.chance()

    def fits(item: Item) -> bool:
        if item.rank != x.rank or item.dtype != x.dtype:
            return False
        return all(
            a == b or (index == axis and not stacked)
            for index, (a, b) in enumerate(zip(x.shape, item.shape, strict=True))
        )

    others = [draft.pick(fits) for _ in range(draft.integer(0, 2))]
    everything = [x, *(item for item in others if item is not None)]
    fact = everything[0].fact
    for item in everything[1:]:
        fact = fact | item.fact
    if stacked:
        axis = draft.integer(0, x.rank)
        shape = [*x.shape[:axis], len(everything), *x.shape[axis:]]
        return draft.add("aten.stack.default", everything, axis, shape=shape, dtype=x.dtype, fact=fact)
    total = sum((item.shape[axis] for item in everything), start=sympy.Integer(0))
    shape = [*x.shape[:axis], total, *x.shape[axis + 1 :]]
    return draft.add("aten.cat.default", everything, axis, shape=shape, dtype=x.dtype, fact=fact)


def pad(draft: Draft) -> Item | None:
    """A frame of one value around the last dimensions."""
    x = draft.pick_float(lambda item: item.rank > 0)
    if x is None:
        return None
    widths = [draft.integer(0, 2) for _ in range(2 * draft.integer(1, min(2, x.rank)))]
    shape = list(x.shape)
    for position in range(len(widths) // 2):
        shape[-1 - position] = shape[-1 - position] + widths[2 * position] + widths[2 * position + 1]
    fact = x.fact | Fact(2.0, 0.0, 1.0)
    if draft.chance():
        return draft.add("aten.constant_pad_nd.default", x, widths, 2.0, shape=shape, fact=fact)
    return draft.add("aten.pad.default", x, widths, "constant", 2.0, shape=shape, fact=fact)


def filled(draft: Draft) -> Item | None:
    """A tensor that does not depend on values."""
    like = draft.pick(lambda item: item.rank > 0)
    if like is None:
        return None
    sizes = [draft.size(size) for size in like.shape]
    kind = draft.choose(("full", "zeros", "arange"))
    if kind == "arange":
        size = like.shape[-1]
        bound = Fact(draft.highest(size), 0.0, 1.0)
        return draft.add("aten.arange.default", sizes[-1], shape=[size], dtype=torch.int64, fact=bound)
    value = {"full": (2.5,), "zeros": ()}[kind]
    return draft.add(f"aten.{kind}.default", sizes, *value, shape=like.shape, fact=Fact(2.5, 0.0, 0.5))
