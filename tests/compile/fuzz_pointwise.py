"""Random operators that treat each element alone, and those along rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from fuzz_draft import Draft, Fact, Item, made

from taut.graph import Dim

INTEGERS = (torch.int64, torch.int32)

SMOOTH = {
    # by name: the largest slope, and the bound of the result where the argument does not bound it
    "tanh": (1.0, 1.0),
    "sigmoid": (0.25, 1.0),
    "erf": (1.2, 1.0),
    "sin": (1.0, 1.0),
    "cos": (1.0, 1.0),
    "silu": (1.1, None),
    "gelu": (1.2, None),
    "hardsigmoid": (0.2, 1.0),
    "hardswish": (1.5, None),
    "leaky_relu": (1.0, None),
}
# Of |x| + 1/2: slope, bound.
AWAY_FROM_ZERO = {"log": (2.0, 10.0), "sqrt": (0.8, 200.0), "rsqrt": (1.5, 2.0), "reciprocal": (4.0, 2.0)}
_SAME_GRID = ("neg", "abs", "relu")
JUMPS = ("sign", "floor", "ceil", "round")
_LIMITS = {
    "relu6": (),
    "hardtanh": (),
    "clamp": (-0.5, 1.0),
    "clamp_min": (0.5,),
    "clamp_max": (0.5,),
}


def unary(draft: Draft) -> Item | None:
    """A function of one float."""
    x = draft.pick_float()
    if x is None:
        return None
    kind = draft.choose(("smooth", "same", "limits", "power", "away", "jump", "exp"))
    fact = x.fact
    if kind == "smooth":
        name = draft.choose(list(SMOOTH))
        slope, bound = SMOOTH[name]
        kwargs = {"approximate": "tanh"} if name == "gelu" and draft.chance() else {}
        fact = fact.through(slope, fact.bound if bound is None else bound)
        return draft.add(f"aten.{name}.default", x, shape=x.shape, fact=fact, kwargs=kwargs)
    if kind == "same":
        return draft.add(f"aten.{draft.choose(_SAME_GRID)}.default", x, shape=x.shape, fact=fact)
    if kind == "limits":
        name = draft.choose(list(_LIMITS))
        limited = Fact(max(6.0, fact.bound), fact.error, min(fact.step, 0.5))
        return draft.add(f"aten.{name}.default", x, *_LIMITS[name], shape=x.shape, fact=limited)
    if kind == "power":
        name, args = draft.choose((("square.default", ()), ("pow.Tensor_Scalar", (2,)), ("pow.Tensor_Scalar", (3,))))
        powered = fact * fact * fact if args == (3,) else fact * fact
        return draft.add(f"aten.{name}", x, *args, shape=x.shape, fact=powered)
    if kind == "away":
        name = draft.choose(list(AWAY_FROM_ZERO))
        slope, bound = AWAY_FROM_ZERO[name]
        positive = away_from_zero(draft, x)
        if positive is None:
            return None
        return draft.add(f"aten.{name}.default", positive, shape=x.shape, fact=positive.fact.through(slope, bound))
    if kind == "jump":
        if not x.exact:
            return None
        grid = Fact(fact.bound + 1, 0.0, 1.0)
        return draft.add(f"aten.{draft.choose(JUMPS)}.default", x, shape=x.shape, fact=grid)
    if fact.bound > 5:
        return None
    return draft.add(
        "aten.exp.default", x, shape=x.shape, fact=fact.through(math.exp(fact.bound), math.exp(fact.bound))
    )


def away_from_zero(draft: Draft, x: Item) -> Item | None:
    """|x| + 1/2."""
    magnitude = draft.add("aten.abs.default", x, shape=x.shape, fact=x.fact)
    assert magnitude is not None
    return draft.add("aten.add.Tensor", magnitude, 0.5, shape=x.shape, fact=x.fact + Fact(0.5, 0.0, 0.5))


def integer_unary(draft: Draft) -> Item | None:
    """A function of one integer or truth value."""
    x = draft.pick(lambda item: not item.is_float)
    if x is None:
        return None
    if x.dtype == torch.bool:
        name = draft.choose(("logical_not", "bitwise_not"))
        return draft.add(f"aten.{name}.default", x, shape=x.shape, dtype=torch.bool, fact=x.fact)
    name = draft.choose(("neg", "abs", "relu", "sign", "square", "clamp"))
    fact = x.fact * x.fact if name == "square" else Fact(max(x.fact.bound, 2.0), 0.0, 1.0)
    if name == "square" and x.dtype == torch.int32:
        return None
    args = (-1, 2) if name == "clamp" else ()
    return draft.add(f"aten.{name}.default", x, *args, shape=x.shape, dtype=x.dtype, fact=fact)


def broadcast(a: Sequence[Dim], b: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """The sizes of both together, or None if they do not fit."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    if any(x != y and x != 1 and y != 1 for x, y in zip(a, b, strict=True)):
        return None
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


def _partner(draft: Draft, x: Item) -> Item | None:
    return draft.pick(lambda item: broadcast(x.shape, item.shape) is not None)


def common_dtype(*items: Item) -> torch.dtype:
    """What torch computes with."""
    a, b = (torch.empty((1,) * item.rank, dtype=item.dtype) for item in items)
    return torch.result_type(a, b)


def binary(draft: Draft) -> Item | None:
    """Arithmetic on two values, or a value and a number."""
    x = draft.pick(lambda item: True)
    name = draft.choose(("add", "sub", "mul", "maximum", "minimum", "div"))
    if x is None:
        return None
    if name in ("add", "sub", "mul") and x.dtype != torch.bool and draft.chance():
        number = draft.choose((2, -1, 0.5) if x.is_float else (2, -1))
        other = Fact(abs(float(number)), 0.0, 0.5)
        fact = x.fact * other if name == "mul" else x.fact + other
        return draft.add(f"aten.{name}.Tensor", x, number, shape=x.shape, dtype=x.dtype, fact=fact)
    y = _partner(draft, x)
    if y is None:
        return None
    if name == "div":
        if not y.is_float:
            return None
        divisor = away_from_zero(draft, y)
        if divisor is None:
            return None
        error = 2 * x.fact.error + 4 * x.fact.bound * divisor.fact.error + 2 * x.fact.bound
        shape = broadcast(x.shape, y.shape)
        assert shape is not None
        if common_dtype(x, divisor) != torch.float32:
            return None
        return draft.add("aten.div.Tensor", x, divisor, shape=shape, fact=Fact(2 * x.fact.bound, error))
    dtype, shape = common_dtype(x, y), broadcast(x.shape, y.shape)
    assert shape is not None
    if torch.bool in (x.dtype, y.dtype) and name == "sub":
        return None
    if name in ("maximum", "minimum"):
        return draft.add(f"aten.{name}.default", x, y, shape=shape, dtype=dtype, fact=x.fact | y.fact)
    fact = x.fact * y.fact if name == "mul" else x.fact + y.fact
    if dtype == torch.bool:
        fact = Fact(1.0, 0.0, 1.0)
    kwargs = {}
    if name != "mul" and dtype != torch.bool and draft.chance():
        kwargs = {"alpha": 2}
        fact = fact + y.fact
    return draft.add(f"aten.{name}.Tensor", x, y, shape=shape, dtype=dtype, fact=fact, kwargs=kwargs)


def compare(draft: Draft) -> Item | None:
    """A truth value."""
    x = draft.pick(lambda item: item.exact)
    if x is None:
        return None
    name = draft.choose(("eq", "ne", "lt", "le", "gt", "ge"))
    truth = Fact(1.0, 0.0, 1.0)
    if x.dtype != torch.bool and draft.chance():
        number = draft.choose((0, 1, 0.5))
        return draft.add(f"aten.{name}.Scalar", x, number, shape=x.shape, dtype=torch.bool, fact=truth)
    y = draft.pick(lambda item: item.exact and broadcast(x.shape, item.shape) is not None)
    shape = None if y is None else broadcast(x.shape, y.shape)
    if shape is None:
        return None
    return draft.add(f"aten.{name}.Tensor", x, y, shape=shape, dtype=torch.bool, fact=truth)


def logical(draft: Draft) -> Item | None:
    """And, or."""
    x = draft.pick(lambda item: item.dtype == torch.bool)
    if x is None:
        return None
    y = draft.pick(lambda item: item.dtype == torch.bool and broadcast(x.shape, item.shape) is not None)
    shape = None if y is None else broadcast(x.shape, y.shape)
    name = draft.choose(("logical_and.default", "logical_or.default", "bitwise_and.Tensor", "bitwise_or.Tensor"))
    if shape is None:
        return None
    return draft.add(f"aten.{name}", x, y, shape=shape, dtype=torch.bool, fact=Fact(1.0, 0.0, 1.0))


def choice(draft: Draft) -> Item | None:
    """Where, masked_fill."""
    mask = draft.pick(lambda item: item.dtype == torch.bool)
    if mask is None:
        return None
    x = _partner(draft, mask)
    if x is None:
        return None
    shape = broadcast(mask.shape, x.shape)
    assert shape is not None
    if draft.chance():
        if shape != x.shape or x.dtype == torch.bool:
            return None
        number = draft.choose((0, -2))
        fact = x.fact | Fact(2.0, 0.0, 1.0)
        return draft.add("aten.masked_fill.Scalar", x, mask, number, shape=shape, dtype=x.dtype, fact=fact)
    y = draft.pick(lambda item: broadcast(shape, item.shape) is not None)
    whole = None if y is None else broadcast(shape, y.shape)
    if y is None or whole is None:
        return None
    return draft.add("aten.where.self", mask, x, y, shape=whole, dtype=common_dtype(x, y), fact=x.fact | y.fact)


def convert(draft: Draft) -> Item | None:
    """Another dtype."""
    dtype = draft.choose((torch.float32, torch.int64, torch.int32, torch.bool))
    x = draft.pick(lambda item: item.dtype != dtype and item.exact)
    if x is None:
        return None
    fact = x.fact if dtype == torch.float32 and x.fact.step else Fact(max(x.fact.bound, 1.0), 0.0, 1.0)
    return draft.add("aten._to_copy.default", x, shape=x.shape, dtype=dtype, fact=fact, kwargs={"dtype": dtype})


def reduction(draft: Draft) -> Item | None:
    """Sum, mean, largest, smallest along dimensions."""
    name = draft.choose(("sum", "mean", "amax", "amin"))
    x = draft.pick_float(lambda item: item.rank > 0)
    if x is None:
        return None
    axes = _axes(draft, x)
    keep = draft.chance()
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
    counted = [x.shape[axis] for axis in axes]
    signed = [axis - x.rank if draft.chance() else axis for axis in axes]
    if name in ("amax", "amin"):
        if draft.lowest(*counted) == 0:
            return None
        return draft.add(f"aten.{name}.default", x, signed, keep, shape=shape, fact=x.fact)
    total = x.fact.summed(max(1, draft.highest(*counted)))
    if name == "mean":
        total = Fact(x.fact.bound, x.fact.error + 4 * x.fact.bound)
    if name == "sum" and len(axes) == x.rank and not keep and draft.chance():
        return draft.add("aten.sum.default", x, shape=(), fact=total)
    return draft.add(
        f"aten.{name}.{'dim_IntList' if name == 'sum' else 'dim'}", x, signed, keep, shape=shape, fact=total
    )


def _axes(draft: Draft, x: Item) -> list[int]:
    kind = draft.choose(("last", "one", "all", "two"))
    if kind == "last":
        return [x.rank - 1]
    if kind == "all":
        return list(range(x.rank))
    first = draft.integer(0, x.rank - 1)
    second = draft.integer(0, x.rank - 1) if kind == "two" else first
    return sorted({first, second})


def normalisation(draft: Draft) -> Item | None:
    """Softmax and normalisation along the last dimensions."""
    x = draft.pick_float(lambda item: item.rank > 0)
    if x is None:
        return None
    name = draft.choose(("softmax", "log_softmax", "layer_norm", "rms_norm"))
    if name in ("softmax", "log_softmax"):
        axis = draft.integer(-x.rank, x.rank - 1)
        bound = 1.0 if name == "softmax" else 2 * x.fact.bound + 5
        return draft.add(f"aten.{name}.int", x, axis, shape=x.shape, fact=x.fact.through(2.0, bound))
    width = draft.integer(1, min(2, x.rank))
    tail = x.shape[-width:]
    if any(not isinstance(size, int) for size in tail):
        return None
    count = max(1, draft.highest(*tail))
    given = [draft.constant(tail) if draft.chance() else None for _ in range(2)]  # pyright: ignore
    bound = 2 * math.sqrt(count) + 2
    error = 20 * (x.fact.error + x.fact.bound) + bound  # epsilon 0.01: the inverse deviation is at most 10
    if name == "layer_norm":
        return draft.add(
            "aten.layer_norm.default", x, list(tail), *given, 0.01, shape=x.shape, fact=Fact(bound, 2 * error)
        )
    return draft.add("aten.rms_norm.default", x, list(tail), given[0], 0.01, shape=x.shape, fact=Fact(bound, 2 * error))


def elsewhere(draft: Draft) -> Item | None:
    """Operators that run on ATen."""
    x = draft.pick_float(lambda item: item.rank > 0)
    if x is None:
        return None
    axis = draft.integer(0, x.rank - 1)
    if draft.chance():
        fact = made(0, 0, 1) if draft.highest(x.shape[axis]) == 0 else x.fact.summed(draft.highest(x.shape[axis]))
        return draft.add("aten.cumsum.default", x, axis, shape=x.shape, fact=fact)
    return draft.add("aten.flip.default", x, [axis], shape=x.shape, fact=x.fact)
