"""The layout of 4-bit vector-scaled weights on a GPU. Apart from the kernels, so that packing needs no triton."""

import torch
from torch import Tensor

STEP = 128
"""Input features that a program of the kernel works off at a time."""

VECTOR = 16
"""Input features that share a scale."""


def pack_triton_vector_linear(codes: Tensor, scales: Tensor) -> Tensor:
    """Lay out checked codes (N, K) int8 and scales (N, ceil(K / 16)) uint8, as `(ceil(K / 128), 68, N)` uint8.

    In a step of 128 input features, byte j of the first 64 holds the codes of features j and 64 + j with an offset of
    8 in its low and high nibble; byte j of the last 4 the scales of vectors j and 4 + j. Neighbouring bytes belong to
    neighbouring output channels, so that a warp's loads are contiguous. Missing features are zero. 4.25 bits a weight.
    """
    channels, features = codes.shape
    steps = -(-features // STEP)
    padded = codes.new_zeros(channels, steps * STEP)
    padded[:, :features] = codes
    factors = scales.new_zeros(channels, steps * STEP // VECTOR)
    factors[:, : scales.shape[1]] = scales
    parts = []
    for values in ((padded + 8).view(torch.uint8), factors):
        halves = values.view(channels, steps, 2, -1)
        parts.append(halves[:, :, 0] | halves[:, :, 1] << 4)
    return torch.cat(parts, dim=2).permute(1, 2, 0).contiguous()
