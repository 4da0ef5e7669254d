"""What the selection kernels compute, by sorting."""

from __future__ import annotations

import torch
from torch import Tensor

INFINITY, NAN = float("inf"), float("nan")


def magnitude_bits(x: Tensor) -> Tensor:
    """The bits without the sign, by which magnitudes are ordered: numbers, infinity, NaN."""
    return x.flatten().view(torch.int32) & 0x7FFFFFFF


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality that tells -0 from 0 and knows NaN."""
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


def reference_top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    order = magnitude_bits(x).argsort(descending=True, stable=True)[:k].sort().values
    return order.int(), x.flatten()[order]


def gradient(kind: str, size: int, seed: int = 0) -> Tensor:
    """A tensor of some distribution."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=generator)
    if kind == "zeros":
        return torch.zeros(size)
    if kind == "constant":
        return torch.full((size,), -2.5)
    if kind == "ties":
        return (x * 3).round()
    if kind == "denormal":
        return x * 1e-40
    if kind == "wide":
        return x * 10.0 ** torch.randint(-30, 30, (size,), generator=generator)
    if kind == "sparse":
        return x * (torch.rand(size, generator=generator) < 0.01)
    if kind == "not finite":
        x[torch.randperm(size, generator=generator)[: size // 50]] = NAN
        x[torch.randperm(size, generator=generator)[: size // 50]] = INFINITY
        x[torch.randperm(size, generator=generator)[: size // 50]] = -INFINITY
    return x


KINDS = ("normal", "zeros", "constant", "ties", "denormal", "wide", "sparse", "not finite")
