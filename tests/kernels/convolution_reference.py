"""Integer-exact convolutions in plain torch, the meaning of the native ones."""

from typing import NamedTuple

import torch
from int8_reference import quantise_rows
from torch import Tensor


class Geometry(NamedTuple):
    """Vertical and horizontal numbers, as `torch.nn.Conv2d` holds them."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


def fold_codes(codes: Tensor, scales: Tensor) -> Tensor:
    """Codes (O, taps, I) and scales (O, taps, ceil(I / 16)) -> the integers that they stand for, (O, taps, I)."""
    return codes.long() * scales.long().repeat_interleave(16, dim=2)[:, :, : codes.shape[2]]


def reference_convolution(
    x: Tensor, integers: Tensor, scales: Tensor, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """x (N, C, H, W) float32, integers (O, taps, C) -> (N, O, H', W') in the arithmetic of the kernel.

    The sums are of integers below 2^53 in float64, and so exact; then each operation is rounded to float32 once.
    """
    quantised, image_scales = quantise_rows(x.flatten(1))
    channels, _, features = integers.shape
    weight = integers.transpose(1, 2).reshape(channels, features, *geometry.kernel_size)
    sums = torch.nn.functional.conv2d(
        quantised.view(x.shape).double(), weight.double(), None, geometry.stride, geometry.padding, geometry.dilation
    )
    combined = (image_scales[:, None] * scales)[:, :, None, None]
    # A float64 product of two float32 is exact and the sum is off by 2^-53 of it at most: as good as a fused one.
    out = sums.long().float().double() * combined.double()  # an integer has one zero, without a sign
    if bias is not None:
        out = out + bias.double()[:, None, None]
    return out.float()
