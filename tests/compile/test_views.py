"""Views: what torch's strides say, also with symbolic sizes."""

import math

import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.compile._dims import plain, quotient, same
from taut.compile._views import Buffer, View, contiguous
from taut.graph import evaluate

S, T = (sympy.Symbol(name, integer=True, nonnegative=True) for name in ("s0", "s1"))


def tensor(view: View, sizes: dict[str, int]) -> torch.Tensor:
    count = evaluate(view.buffer.elements, sizes)
    shape, strides = ([evaluate(item, sizes) for item in group] for group in (view.sizes, view.strides))
    return torch.arange(count).as_strided(shape, strides, evaluate(view.offset, sizes))


def buffer(elements: int | sympy.Expr) -> Buffer:
    return Buffer("arena", torch.float32, elements)


@st.composite
def shapes_and_regroupings(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=3)))
    groups = [factors[a:b] for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
    order = draw(st.permutations(range(len(factors))))
    return factors, [math.prod(group) for group in groups], list(order)


@given(shapes_and_regroupings())
def test_reshape_is_torchs_view_where_there_is_one(case: tuple[list[int], list[int], list[int]]) -> None:
    factors, regrouped, order = case
    whole = contiguous(buffer(math.prod(factors)), factors).permute(order)
    expected = torch.arange(math.prod(factors)).reshape(factors).permute(order)
    found = whole.reshape(regrouped)
    try:
        torch_view = expected.view(regrouped)
    except RuntimeError:
        torch_view = None
    assert (found is None) == (torch_view is None)
    if found is not None and torch_view is not None:
        assert torch.equal(tensor(found, {}), torch_view)


def test_symbolic_dimensions_split_and_merge() -> None:
    whole = contiguous(buffer(8 * S * T), (S, T, 8))
    merged = whole.reshape((plain(S * T), 8))
    assert merged is not None
    split = merged.reshape((S, T, 2, 4))
    assert split is not None
    heads = split.permute((0, 2, 1, 3))
    assert heads.reshape((plain(2 * S), T, 4)) is None
    assert heads.permute((0, 2, 1, 3)).reshape((S, plain(8 * T))) is not None
    sizes = {"s0": 3, "s1": 5}
    expected = torch.arange(120).reshape(3, 5, 2, 4).transpose(1, 2)
    assert torch.equal(tensor(heads, sizes), expected)


@given(st.data())
def test_narrow_insert_expand_and_drop(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    step = data.draw(st.integers(1, 3))
    size = data.draw(st.integers(0, -(-(shape[axis] - start) // step)))
    view = contiguous(buffer(math.prod(shape)), shape)
    expected = torch.arange(math.prod(shape)).reshape(shape)
    stop = start + step * size
    cut = expected[(slice(None),) * axis + (slice(start, stop, step),)]
    assert torch.equal(tensor(view.narrow(axis, start, size, step), {}), cut)
    inserted = view.insert(axis)
    assert torch.equal(tensor(inserted, {}), expected.unsqueeze(axis))
    wide = [*shape[:axis], 3, *shape[axis:]]
    assert torch.equal(tensor(inserted.expand(wide), {}), expected.unsqueeze(axis).expand(wide))
    assert torch.equal(tensor(view.narrow(axis, start, 1).drop([axis]), {}), expected.select(axis, start))


def test_quotients_and_equality_are_exact() -> None:
    assert quotient(plain(6 * S * T), plain(2 * T)) == 3 * S
    assert quotient(plain(S + T), S) is None
    assert quotient(7, 2) is None
    assert same(plain(S * (T + 1)), plain(S * T + S))
    assert not same(S, T)
