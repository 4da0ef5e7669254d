"""Values as views of buffers: sizes and strides that may be symbolic, so that layout changes cost nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch

from taut.compile._dims import plain, product, quotient, same
from taut.graph import Dim


@dataclasses.dataclass(eq=False)
class Buffer:
    """Memory that holds one tensor.

    Attributes:
        kind: "input" and "constant" are only read; "arena" is planned; "storage" is allocated by its size when the
            program runs, because it is returned, or its size is not known before.
        dtype: of its elements.
        elements: how many it holds.
        constant: the tensor of a constant.
        name: for people.
        device: the logical device whose memory it is.
    """

    kind: Literal["input", "constant", "arena", "storage"]
    dtype: torch.dtype
    elements: Dim
    constant: torch.Tensor | None = None
    name: str = ""
    device: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A tensor value: where its elements lie in a buffer; offset and strides in elements."""

    buffer: Buffer
    sizes: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    @property
    def dtype(self) -> torch.dtype:
        """The element type."""
        return self.buffer.dtype

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.sizes)

    def with_dimensions(self, sizes: Sequence[Dim], strides: Sequence[Dim], offset: Dim | None = None) -> View:
        """The same buffer seen otherwise."""
        return View(self.buffer, tuple(sizes), tuple(strides), self.offset if offset is None else offset)

    def permute(self, order: Sequence[int]) -> View:
        """Dimension i of the result is dimension order[i]."""
        return self.with_dimensions([self.sizes[i] for i in order], [self.strides[i] for i in order])

    def insert(self, position: int) -> View:
        """With a dimension of size 1 before `position`."""
        sizes, strides = list(self.sizes), list(self.strides)
        sizes.insert(position, 1)
        strides.insert(position, 0)
        return self.with_dimensions(sizes, strides)

    def drop(self, positions: Sequence[int]) -> View:
        """Without dimensions, whose index becomes 0."""
        kept = [i for i in range(self.rank) if i not in positions]
        return self.permute(kept)

    def narrow(self, dimension: int, start: Dim, size: Dim, step: int = 1) -> View:
        """`size` elements of a dimension from `start` on, every `step`-th."""
        sizes, strides = list(self.sizes), list(self.strides)
        offset = plain(self.offset + start * strides[dimension])
        sizes[dimension] = size
        strides[dimension] = plain(strides[dimension] * step)
        return self.with_dimensions(sizes, strides, offset)

    def expand(self, sizes: Sequence[Dim]) -> View:
        """Broadcast to sizes; new dimensions come first."""
        missing = len(sizes) - self.rank
        strides: list[Dim] = [0] * missing
        for size, own, stride in zip(sizes[missing:], self.sizes, self.strides, strict=True):
            strides.append(0 if own == 1 and not same(size, 1) else stride)
        return self.with_dimensions(sizes, strides)

    def reshape(self, sizes: Sequence[Dim]) -> View | None:
        """With other sizes and the same elements in row-major order, or None where no strides express that."""
        sizes = tuple(sizes)
        if any(size == 0 for size in sizes):
            return self.with_dimensions(sizes, contiguous_strides(sizes))
        runs = _runs(self)
        strides: list[Dim] = [1] * len(sizes)
        position = len(sizes) - 1
        for total, stride in reversed(runs):
            left, step = total, stride
            while position >= 0 and not same(left, 1):
                rest = quotient(left, sizes[position])
                if rest is None:
                    return None
                strides[position] = step
                step = plain(step * sizes[position])
                left = rest
                position -= 1
        if any(not same(size, 1) for size in sizes[: position + 1]):
            return None
        return self.with_dimensions(sizes, strides)

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        expected = contiguous_strides(self.sizes)
        return all(
            same(size, 1) or same(stride, wanted)
            for size, stride, wanted in zip(self.sizes, self.strides, expected, strict=True)
        )


def contiguous_strides(sizes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The strides of a row-major tensor; a size of 0 counts as 1, as a stride of 0 would mean a repeated element."""
    return tuple(product(1 if size == 0 else size for size in sizes[i + 1 :]) for i in range(len(sizes)))


def contiguous(buffer: Buffer, sizes: Sequence[Dim]) -> View:
    """A whole buffer as a row-major tensor."""
    return View(buffer, tuple(sizes), contiguous_strides(sizes))


def _runs(view: View) -> list[tuple[Dim, Dim]]:
    """Dimensions merged where they lie behind each other: (elements, stride of the last), outermost first."""
    runs: list[tuple[Dim, Dim]] = []
    for size, stride in zip(view.sizes, view.strides, strict=True):
        if same(size, 1):
            continue
        if runs and same(runs[-1][1], plain(size * stride)):
            runs[-1] = (plain(runs[-1][0] * size), stride)
        else:
            runs.append((size, stride))
    return runs
