"""What a scale chooser is given and what it returns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from taut.numerics._elements import E4M3
from taut.numerics._format import Format

SMALLEST_ROW = 2.0**-100
"""Rows whose largest magnitude is below count as zeros where gamma is a float32."""

_LEAST, _MOST = 2.0**-40, 2.0**40  # between them squares of rounding errors stay well inside float32


@dataclass(frozen=True)
class Problem:
    """Numbers to choose scales for.

    Attributes:
        blocks: `(rows, vectors, elements)` float32, finite; short vectors end in zeros.
        format: the number format.
        weights: how much a squared error counts, broadcastable to `blocks`, or None for 1 each.
    """

    blocks: Tensor
    format: Format
    weights: Tensor | None = None

    @property
    def shared(self) -> tuple[int, ...]:
        """The dimensions of `blocks` over which the coarse scale is shared."""
        return (0, 1, 2) if self.format.coarse is not None and self.format.coarse.per == "tensor" else (1, 2)

    @functools.cached_property
    def unit(self) -> Tensor | None:
        """What errors are multiplied by before they are squared, where that is needed."""
        magnitudes = largest(self.blocks, self.shared)
        if not magnitudes.numel() or bool(((magnitudes > _LEAST) & (magnitudes < _MOST) | (magnitudes == 0)).all()):
            return None
        return torch.ldexp(torch.ones_like(magnitudes), -torch.frexp(magnitudes).exponent.clamp(-120, 120))

    def amax(self) -> Tensor:
        """Largest magnitude of each vector, `(rows, vectors, 1)`."""
        return largest(self.blocks, (2,))

    def error(self, scales: Tensor, over: tuple[int, ...]) -> Tensor:
        """Weighted squared error of the numbers rounded to multiples of the scales (0 gives zeros).

        In a unit of its own for each row (tensor) where magnitudes are such that squares leave the range of float32.

        Args:
            scales: broadcastable to `blocks`.
            over: the dimensions to sum over; they are kept with size 1.
        """
        rounded = self.format.elements.round_(self.blocks / nonzero(scales)).mul_(scales)
        difference = rounded.sub_(self.blocks)
        if self.unit is not None:
            difference.mul_(self.unit)
        difference.square_()
        if self.weights is not None:
            difference.mul_(self.weights)
        return difference.sum(over, keepdim=True)


@dataclass(frozen=True)
class Choice:
    """Chosen scales; every tensor has three dimensions and broadcasts against the blocks.

    Attributes:
        scales: stored scales: integers or E8M0/E4M3 patterns as uint8 or int16, or float16/float32; None without.
        gammas: float32 coarse scales, or None.
        divisors: what the numbers are divided by before they are rounded to elements; 0 stands for zeros.
        factors: what they are multiplied by instead, where the order of roundings is prescribed.
        zero_points: uint8, or None.
        minima: stored minima of the vectors, uint8, or None.
        minimum_gammas: coarse scales of the minima, or None.
        codes: the element codes, `(rows, vectors, elements)`, where the chooser settles them itself.
    """

    scales: Tensor | None
    gammas: Tensor | None
    divisors: Tensor | None = None
    factors: Tensor | None = None
    zero_points: Tensor | None = None
    minima: Tensor | None = None
    minimum_gammas: Tensor | None = None
    codes: Tensor | None = None


Chooser = Callable[[Problem], Choice]


def element_codes(problem: Problem, choice: Choice) -> Tensor:
    """Element codes of a choice, `(rows, vectors, elements)`."""
    if choice.codes is not None:
        return choice.codes
    elements = problem.format.elements
    if choice.factors is not None:
        scaled = problem.blocks * choice.factors
    else:
        assert choice.divisors is not None
        scaled = problem.blocks / nonzero(choice.divisors)
    if choice.zero_points is not None:
        scaled.round_().add_(choice.zero_points)
    return elements.codes(elements.round_(scaled))


def largest(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """Largest magnitude over dimensions, kept with size 1; 0 where there is nothing."""
    if not x.numel():
        return x.new_zeros([1 if place in over else size for place, size in enumerate(x.shape)])
    # The extremes of both signs: no copy of the magnitudes. Adding 0 makes -0 positive.
    return torch.maximum(x.amax(over, keepdim=True), x.amin(over, keepdim=True).neg_()).add_(0.0)


def nonzero(scales: Tensor) -> Tensor:
    """Scales with infinity in the place of 0, so that division gives zeros."""
    return scales.masked_fill(scales == 0, torch.inf)


def reciprocal(scales: Tensor) -> Tensor:
    """1 / scale, and 0 where the scale is 0."""
    return nonzero(scales).reciprocal_()


def quotient(number: float, x: Tensor) -> Tensor:
    """`number / x`, rounded once; torch's own operator for a Python number multiplies by the rounded reciprocal."""
    return torch.tensor(number, dtype=torch.float32, device=x.device) / x


def scale_values(stored: Tensor, kind: str) -> Tensor:
    """Float32 values of stored scales."""
    if kind == "e8m0":  # 2**(code - 127); the bits of a float32 except for the least, which is subnormal
        bits = (stored.to(torch.int32) << 23).masked_fill(stored == 0, 1 << 22)
        return bits.view(torch.float32).masked_fill(stored == 255, torch.nan)
    if kind == "e4m3":
        return E4M3.values(stored)
    return stored.to(torch.float32)


def integer_dtype(bits: int) -> torch.dtype:
    """Of unpacked integer scales."""
    return torch.uint8 if bits <= 8 else torch.int16
