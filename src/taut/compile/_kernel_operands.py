"""Views as kernels take them: in the order of memory, merged where they lie behind each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taut.codegen import Operand
from taut.compile._dims import plain, product, same
from taut.compile._pointwise import DTYPES
from taut.compile._views import View
from taut.graph import Dim, evaluate

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


def memory_order(view: View, hint: Mapping[str, int], last: Sequence[int] = ()) -> list[int]:
    """The dimensions from the largest stride to the smallest, with those in `last` behind the others."""

    def rank(axis: int) -> tuple[bool, float, int]:
        # A dimension that does not move keeps its place relative to the one before.
        return axis in last, -_stride(view, axis, hint), axis

    return sorted(range(view.rank), key=rank)


def _stride(view: View, axis: int, hint: Mapping[str, int]) -> float:
    if same(view.sizes[axis], 1) or view.strides[axis] == 0:
        following = [_stride(view, other, hint) for other in range(axis + 1, view.rank)]
        return max(following[0] if following else 0.5, 0.5)
    return evaluate(view.strides[axis], hint)


def align(view: View, reference: View, sizes: Sequence[Dim], hint: Mapping[str, int]) -> View | None:
    """A view of equal logical sizes as `reference`, in the dimensions of the memory behind that.

    Args:
        view: what to look at.
        reference: a view that holds each element of a row-major buffer with `sizes` once.
        sizes: of that buffer.
        hint: typical values of the symbols.

    Returns:
        The view with `sizes`, or None where no strides express it.
    """
    return view.permute(memory_order(reference, hint)).reshape(sizes)


def merge(views: Sequence[View], row_dimensions: int = 0) -> list[View] | None:
    """Views of equal sizes with neighbouring dimensions merged wherever that holds for all.

    Args:
        views: the views; where one does not move, its stride is 0.
        row_dimensions: how many of the last dimensions are those of a row, which others do not join.

    Returns:
        The views with at least one dimension, or None where the dimensions of a row do not merge into one.
    """
    rank = views[0].rank
    kept = [axis for axis in range(rank) if not all(same(view.sizes[axis], 1) for view in views)]
    row = {axis for axis in range(rank - row_dimensions, rank)}
    if row_dimensions and not row & set(kept):
        kept.append(rank - 1)
    if not kept:
        return [view.with_dimensions([1], [1]) for view in views]
    # Where there are no elements, any stride walks along them.
    empty = {
        inside: any(views[0].sizes[axis] == 0 for axis in kept if (axis in row) == inside) for inside in (True, False)
    }
    groups: list[list[int]] = []
    for axis in kept:
        previous = groups[-1][-1] if groups else None
        if (
            previous is not None
            and (previous in row) == (axis in row)
            and (empty[axis in row] or all(_joins(v, previous, axis) for v in views))
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    if sum(group[0] in row for group in groups) > 1:
        return None
    return [
        view.with_dimensions(
            [product(view.sizes[axis] for axis in group) for group in groups],
            [_joined_stride(view, group, empty[group[0] in row]) for group in groups],
        )
        for view in views
    ]


def _joined_stride(view: View, group: Sequence[int], empty: bool) -> Dim:
    """The stride of merged dimensions; without elements there is none, but those that move stay apart from others."""
    return view.strides[group[-1]] if not empty else int(any(view.strides[axis] != 0 for axis in group))


def _joins(view: View, outer: int, inner: int) -> bool:
    """Whether a dimension continues the one outside it."""
    return same(view.strides[outer], plain(view.strides[inner] * view.sizes[inner]))


def broadcast_to_one(view: View) -> View:
    """With size 1 in each dimension that does not move, as kernels take broadcast operands."""
    sizes = [1 if stride == 0 else size for size, stride in zip(view.sizes, view.strides, strict=True)]
    return view.with_dimensions(sizes, view.strides)


def operand(view: View) -> Operand:
    """The declaration of a view that a kernel takes."""
    sizes = tuple(size if isinstance(size, int) else None for size in view.sizes)
    dense = not sizes or sizes[-1] == 1 or same(view.strides[-1], 1)
    return Operand(DTYPES[view.dtype], sizes, dense)


def pixels_last(lowering: Lowering, x: View) -> View:
    """The view x (N, C, H, W) as (N, H, W, C) with dense channels, copied where its memory has another order."""
    nhwc = x.permute((0, 2, 3, 1))
    if same(nhwc.strides[3], 1) or same(nhwc.sizes[3], 1):
        return nhwc
    return lowering.copy(x, (0, 2, 3, 1)).permute((0, 2, 3, 1))
