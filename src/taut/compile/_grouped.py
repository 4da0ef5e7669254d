"""Reshapes that no strides express, put off: often the next transposition and reshape undo them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from taut.compile._dims import plain, product, quotient, same
from taut.compile._views import View
from taut.graph import Dim


@dataclasses.dataclass(frozen=True, eq=False)
class Grouped:
    """A tensor whose dimensions each stand for several of a view.

    Attributes:
        view: the fine dimensions.
        groups: for each dimension the axes of the view that it stands for, ascending and next to each other.
    """

    view: View
    groups: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """The sizes of the dimensions."""
        return tuple(product(self.view.sizes[axis] for axis in group) for group in self.groups)

    def permute(self, order: Sequence[int]) -> Grouped:
        """Dimension i of the result is dimension order[i]."""
        axes = [axis for position in order for axis in self.groups[position]]
        return Grouped(self.view.permute(axes), _numbered([len(self.groups[position]) for position in order]))

    def insert(self, position: int) -> Grouped:
        """With a dimension of size 1 before `position`."""
        lengths = [len(group) for group in self.groups]
        view = self.view.insert(sum(lengths[:position]))
        return Grouped(view, _numbered([*lengths[:position], 1, *lengths[position:]]))

    def reshape(self, sizes: Sequence[Dim]) -> View | Grouped | None:
        """With other sizes: a view where strides express that, else put off again, else None."""
        found = self.view.reshape(sizes)
        return found if found is not None else group(self.view, sizes)


def group(view: View, sizes: Sequence[Dim]) -> Grouped | None:
    """A view with other sizes, each of which stands for parts of the view's dimensions; None if they do not fit."""
    fine_sizes: list[Dim] = []
    fine_strides: list[Dim] = []
    lengths = [0] * len(sizes)
    wanted = list(sizes)
    position = 0
    for whole, stride in zip(view.sizes, view.strides, strict=True):
        left = whole
        while not same(left, 1):
            while position < len(wanted) and same(wanted[position], 1):
                position += 1
            if position == len(wanted):
                return None
            rest, more = quotient(left, wanted[position]), quotient(wanted[position], left)
            if rest is not None:
                part, left, wanted[position] = wanted[position], rest, 1
            elif more is not None:
                part, left, wanted[position] = left, 1, more
            else:
                return None
            fine_sizes.append(part)
            fine_strides.append(plain(stride * left))
            lengths[position] += 1
    if any(not same(size, 1) for size in wanted):
        return None
    for index, length in enumerate(lengths):
        if length == 0:
            place = sum(lengths[:index])
            fine_sizes.insert(place, 1)
            fine_strides.insert(place, 0)
            lengths[index] = 1
    return Grouped(view.with_dimensions(fine_sizes, fine_strides), _numbered(lengths))


def _numbered(lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    groups = []
    start = 0
    for length in lengths:
        groups.append(tuple(range(start, start + length)))
        start += length
    return tuple(groups)
