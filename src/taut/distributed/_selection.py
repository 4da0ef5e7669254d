"""What compressors do with each element: native kernels where tensors are float32 on the CPU, else torch."""

from __future__ import annotations

import math

import torch

import taut.kernels as kernels


def select_largest(gradient: torch.Tensor, residual: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a gradient to a residual and take its largest entries out; NaN counts as the largest.

    Args:
        gradient: (elements,).
        residual: (elements,); written.
        kept: how many, at most `elements`.

    Returns:
        Indices, (kept,) int32 ascending, and values.
    """
    if _native(residual):
        return kernels.accumulate_and_select_top_k(gradient.to(residual.dtype), residual, kept)
    residual += gradient
    return _take(residual, residual.abs().topk(kept, sorted=False).indices.sort().values)


def select_above(residual: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the entries out of a residual whose magnitude is above a threshold, and NaN.

    Args:
        residual: (elements,); written.
        threshold: at least 0; infinity takes none.

    Returns:
        Indices, (kept,) int32 ascending, and values.
    """
    if threshold == math.inf:
        return residual.new_empty(0, dtype=torch.int32), residual.new_empty(0)
    if _native(residual):
        return kernels.select_above(residual, threshold, residual.numel())[:2]
    return _take(residual, (~(residual.abs() <= threshold)).nonzero().flatten())


def scatter_add(dense: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, scale: float) -> None:
    """Add scaled values, (kept,), at distinct places, (kept,) int32, of a float32 tensor, (elements,)."""
    if _native(dense):
        kernels.scatter_add(dense, indices, values, scale)
    else:
        dense.index_add_(0, indices, values.to(dense.dtype) * scale)


def pack_signs(values: torch.Tensor) -> torch.Tensor:
    """The signs of (elements,) values: (ceil(elements / 8),) uint8, the first value lowest, 1 for negative ones."""
    if _native(values):
        return kernels.pack_signs(values)
    negative = torch.nn.functional.pad(values.signbit(), (0, -values.numel() % 8)).view(-1, 8)
    weights = 1 << torch.arange(8, device=values.device)
    return (negative * weights).sum(dim=1).to(torch.uint8)


def majority(packed: torch.Tensor, elements: int) -> torch.Tensor:
    """The sign that most ranks have, 0 if there is no majority.

    Args:
        packed: (ranks, ceil(elements / 8)) of `pack_signs`.
        elements: how many.

    Returns:
        (elements,) float32 of -1, 0 and 1.
    """
    if packed.device.type == "cpu":
        return kernels.unpack_majority(packed.contiguous(), elements)
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    negative = ((packed[:, :, None] >> places) & 1).flatten(1)[:, :elements].sum(dim=0)
    return (packed.shape[0] - 2 * negative).sign().to(torch.float32)


def _native(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _take(residual: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = residual[indices]
    residual[indices] = 0
    return indices.to(torch.int32), values
