"""Random layers: products, convolutions, pools, attention, embeddings."""

from __future__ import annotations

import math

import sympy
import torch
from fuzz_draft import Draft, Fact, Item, made

from taut.graph import Dim


def products(count: int, a: Fact, b: Fact) -> Fact:
    """The sum of so many products."""
    found = made(count * a.bound * b.bound, count * (a.bound * b.error + b.bound * a.error), a.step * b.step)
    return found if found.error == 0 else Fact(found.bound, found.error + 2 * found.bound)


def _features(draft: Draft, rank: int = 1) -> Item | None:
    return draft.pick_float(lambda item: item.rank >= rank and isinstance(item.shape[-1], int) and item.shape[-1] > 0)


def linear(draft: Draft) -> Item | None:
    """A product with a constant matrix."""
    x = _features(draft)
    if x is None:
        return None
    inner, outer = x.shape[-1], draft.choose((1, 4, 8))
    assert isinstance(inner, int)
    kind = draft.choose(("linear", "linear", "matmul", "addmm"))
    shape = (*x.shape[:-1], outer)
    if kind == "linear":
        weight, bias = draft.constant((outer, inner)), draft.constant((outer,)) if draft.chance() else None
        fact = products(inner, x.fact, weight.fact)
        fact = fact if bias is None else fact + bias.fact
        args = (x, weight) if bias is None else (x, weight, bias)
        return draft.add("aten.linear.default", *args, shape=shape, fact=fact)
    weight = draft.constant((inner, outer))
    fact = products(inner, x.fact, weight.fact)
    if kind == "matmul":
        return draft.add("aten.matmul.default", x, weight, shape=shape, fact=fact)
    if x.rank != 2:
        return None
    bias = draft.constant((outer,))
    return draft.add("aten.addmm.default", bias, x, weight, shape=shape, fact=fact + bias.fact)


def residual(draft: Draft) -> Item | None:
    """A layer, a function of its result, and the layer's argument added: all may be one kernel."""
    x = draft.pick_float(lambda item: item.rank >= 1 and item.shape[-1] in (4, 8))
    if x is None:
        return None
    size = x.shape[-1]
    assert isinstance(size, int)
    weight = draft.constant((size, size))
    y = draft.add("aten.linear.default", x, weight, shape=x.shape, fact=products(size, x.fact, weight.fact))
    if y is None:
        return None
    name = draft.choose(("relu", "tanh", "sigmoid", "gelu"))
    fact = y.fact if name == "relu" else y.fact.through(1.2, y.fact.bound if name == "gelu" else 1.0)
    y = draft.add(f"aten.{name}.default", y, shape=x.shape, fact=fact)
    if y is None:
        return None
    if draft.chance():
        return draft.add("aten.mul.Tensor", y, x, shape=x.shape, fact=y.fact * x.fact)
    pair = (x, y) if draft.chance() else (y, x)
    return draft.add("aten.add.Tensor", *pair, shape=x.shape, fact=y.fact + x.fact)


def matmul(draft: Draft) -> Item | None:
    """A product of two computed matrices."""
    x = _features(draft, 2)
    if x is None:
        return None
    inner = x.shape[-1]
    assert isinstance(inner, int)
    y = draft.pick_float(
        lambda item: item.rank >= 2 and item.shape[:-2] in (x.shape[:-2], ()) and item.shape[-2] == inner
    )
    if y is None:
        y = draft.add("aten.transpose.int", x, -2, -1, shape=(*x.shape[:-2], inner, x.shape[-2]), fact=x.fact)
    assert y is not None
    shape = (*x.shape[:-1], y.shape[-1])
    op = "aten.bmm.default" if x.rank == y.rank == 3 and draft.chance() else "aten.matmul.default"
    return draft.add(op, x, y, shape=shape, fact=products(inner, x.fact, y.fact))


def attention(draft: Draft) -> Item | None:
    """Scaled dot-product attention of a value with itself."""
    x = draft.pick_float(
        lambda item: (
            item.rank in (3, 4)
            and all(isinstance(size, int) and size > 0 for size in (item.shape[-1], item.shape[1]))
            and item.fact.bound <= 8
        )
    )
    if x is None:
        return None
    width = x.shape[-1]
    assert isinstance(width, int)
    scale = draft.choose((None, 0.5))
    factor = scale or 1 / math.sqrt(width)
    length = x.shape[-2]
    mask = None
    causal = draft.chance()
    if not causal:
        mask = draft.pick(
            lambda item: (
                item.is_float
                and item.rank <= 2
                and item.rank > 0
                and item.shape[-1] == length
                and (item.rank == 1 or item.shape[0] in (length, 1))
            )
        )
        if mask is not None and mask.rank == 1:
            mask = draft.add("aten.unsqueeze.default", mask, 0, shape=(1, length), fact=mask.fact)
    scores = 2 * width * x.fact.bound * (x.fact.error + x.fact.bound) * factor
    scores += 0 if mask is None else mask.fact.error + mask.fact.bound
    fact = Fact(x.fact.bound, 2 * x.fact.bound * scores + x.fact.error + 4 * x.fact.bound)
    return draft.add(
        "aten.scaled_dot_product_attention.default",
        x,
        x,
        x,
        mask,
        0.0,
        causal,
        shape=x.shape,
        fact=fact,
        kwargs={} if scale is None else {"scale": scale},
    )


def _window(draft: Draft, size: Dim, kernel: int, pool: bool = False) -> tuple[int, int, int, Dim] | None:
    """Stride, padding, dilation and the size of the result, of at least 1."""
    stride = draft.choose((1, 2))
    padding = draft.integer(0, 1 if kernel > 1 else 0)
    dilation = 1 if pool else draft.choose((1, 2))
    if draft.lowest(size) == 0:  # torch refuses images without pixels
        return None
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = sympy.floor(span / sympy.Integer(stride)) + 1
    if draft.lowest(sympy.sympify(span) + 1) < 1:
        return None
    return stride, padding, dilation, out


def convolution(draft: Draft) -> Item | None:
    """Over one or two dimensions, also depthwise."""
    x = draft.pick_float(lambda item: item.rank in (3, 4) and isinstance(item.shape[1], int) and item.shape[1] > 0)
    if x is None:
        return None
    channels = x.shape[1]
    assert isinstance(channels, int)
    spatial = x.rank - 2
    kernel = [draft.choose((1, 2, 3)) for _ in range(spatial)]
    windows = [_window(draft, size, width) for size, width in zip(x.shape[2:], kernel, strict=True)]
    if any(window is None for window in windows):
        return None
    found = [window for window in windows if window is not None]
    depthwise = draft.chance()
    outer = channels if depthwise else draft.choose((4, 5))
    weight = draft.constant((outer, 1 if depthwise else channels, *kernel))
    bias = draft.constant((outer,)) if draft.chance() else None
    stride, padding, dilation = ([window[index] for window in found] for index in range(3))
    fact = products(math.prod(kernel) * (1 if depthwise else channels), x.fact, weight.fact)
    fact = fact if bias is None else fact + bias.fact
    shape = (x.shape[0], outer, *(window[3] for window in found))
    groups = channels if depthwise else 1
    op = f"aten.conv{spatial}d.default"
    return draft.add(op, x, weight, bias, stride, padding, dilation, groups, shape=shape, fact=fact)


def pool(draft: Draft) -> Item | None:
    """The largest or mean of windows, or of everything."""
    x = draft.pick_float(lambda item: item.rank == 4 and draft.lowest(*item.shape[1:]) > 0)
    if x is None:
        return None
    kind = draft.choose(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"))
    mean = Fact(x.fact.bound, x.fact.error + 8 * x.fact.bound)
    if kind == "adaptive_avg_pool2d":
        return draft.add(f"aten.{kind}.default", x, [1, 1], shape=(*x.shape[:2], 1, 1), fact=mean)
    kernel = [draft.choose((2, 3)), 2]
    windows = [_window(draft, size, width, pool=True) for size, width in zip(x.shape[2:], kernel, strict=True)]
    if any(window is None for window in windows):
        return None
    found = [window for window in windows if window is not None]
    shape = (*x.shape[:2], *(window[3] for window in found))
    args: list = [kernel, [window[0] for window in found], [window[1] for window in found]]
    if kind == "avg_pool2d":
        args += [False, draft.chance()]
    return draft.add(f"aten.{kind}.default", x, *args, shape=shape, fact=x.fact if kind == "max_pool2d" else mean)


def embedding(draft: Draft) -> Item | None:
    """Rows of a table."""
    index = draft.pick(lambda item: item.dtype in (torch.int64, torch.int32) and item.rank < 4)
    if index is None:
        return None
    table = draft.constant((5, 4))
    inside = draft.add(
        "aten.clamp.default", index, 0, 4, shape=index.shape, dtype=index.dtype, fact=Fact(4.0, 0.0, 1.0)
    )
    return draft.add("aten.embedding.default", table, inside, shape=(*index.shape, 4), fact=table.fact)
