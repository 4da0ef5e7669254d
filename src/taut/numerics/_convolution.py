"""Weights of convolutions as rows: vectors run along input channels at a fixed kernel position."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from taut.errors import ArgumentError


def convolution_rows(weight: Tensor) -> Tensor:
    """Lay a convolution's weight out for `encode`.

    Args:
        weight: `(O, I, *kernel)`, of any number of kernel dimensions, at least one.

    Returns:
        `(O, taps, I)`, kernel positions in row-major order; contiguous.

    Raises:
        ArgumentError: fewer than three dimensions.
    """
    if weight.dim() < 3:
        raise ArgumentError("weight", tuple(weight.shape), expected="(O, I, *kernel), the weight of a convolution")
    return weight.flatten(2).transpose(1, 2).contiguous()


def from_convolution_rows(tensor: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """The inverse of `convolution_rows`.

    Args:
        tensor: `(O, taps, I)`.
        kernel_size: the kernel dimensions, whose product is the number of taps.

    Returns:
        `(O, I, *kernel_size)`, contiguous.

    Raises:
        ArgumentError: the taps are not those of the kernel.
    """
    if tensor.dim() != 3 or tensor.shape[1] != math.prod(kernel_size):
        raise ArgumentError(
            "tensor", tuple(tensor.shape), expected=f"(O, {math.prod(kernel_size)}, I) for kernel {tuple(kernel_size)}"
        )
    return tensor.transpose(1, 2).unflatten(2, tuple(kernel_size)).contiguous()
