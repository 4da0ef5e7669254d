"""What compressors do with each element: native kernels where tensors are float32 on the CPU, else torch."""

from __future__ import annotations

import math

import torch

import taut.kernels as kernels


def has_kernels(tensor: torch.Tensor) -> bool:
    """Whether the native kernels take a tensor."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def select_largest(gradient: torch.Tensor, residual: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a gradient to a residual and take its largest entries out; NaN counts as the largest.

    Args:
        gradient: (elements,).
        residual: (elements,); written.
        kept: how many, at most `elements`.

    Returns:
        Indices, (kept,) int32 ascending, and values.
    """
    if has_kernels(residual):
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
    if has_kernels(residual):
        return kernels.select_above(residual, threshold, residual.numel())[:2]
    return _take(residual, (~(residual.abs() <= threshold)).nonzero().flatten())


def scatter_add(dense: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, scale: float) -> None:
    """Add scaled values, (kept,), at distinct places, (kept,) int32, of a float32 tensor, (elements,)."""
    if has_kernels(dense):
        kernels.scatter_add(dense, indices, values, scale)
    else:
        dense.index_add_(0, indices, values.to(dense.dtype) * scale)


def pack_signs(values: torch.Tensor) -> torch.Tensor:
    """The signs of (elements,) values: (ceil(elements / 8),) uint8, the first value lowest, 1 for negative ones."""
    if has_kernels(values):
        return kernels.pack_signs(values)
    negative = torch.nn.functional.pad(values.signbit(), (0, -values.numel() % 8)).view(-1, 8)
    weights = 1 << torch.arange(8, device=values.device)
    return (negative * weights).sum(dim=1).to(torch.uint8)


def accumulate_mean(gradient: torch.Tensor, residual: torch.Tensor) -> float:
    """Add a gradient to a residual, both (elements,); returns the mean magnitude of the sum."""
    if has_kernels(residual):
        return kernels.accumulate_moments(gradient.to(residual.dtype), residual).mean
    residual += gradient
    return residual.abs().mean().item()


def majority(packed: torch.Tensor, elements: int, scale: float) -> torch.Tensor:
    """A scale with the sign that most ranks have, 0 if there is no majority.

    Args:
        packed: (ranks, ceil(elements / 8)) of `pack_signs`.
        elements: how many.
        scale: finite.

    Returns:
        (elements,) float32.
    """
    if packed.device.type == "cpu":
        return kernels.unpack_majority(packed.contiguous(), elements, scale)
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    negative = ((packed[:, :, None] >> places) & 1).flatten(1)[:, :elements].sum(dim=0)
    return (packed.shape[0] - 2 * negative).sign().to(torch.float32) * scale


def floats_of(rows: torch.Tensor) -> torch.Tensor:
    """Float32 numbers, (ranks, numbers), that arrived as bytes, (ranks, 4 * numbers) uint8."""
    # A single row counts as contiguous whatever its stride, which `view` then refuses.
    return rows.reshape(-1).view(torch.float32).view(len(rows), -1)


def _take(residual: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = residual[indices]
    residual[indices] = 0
    return indices.to(torch.int32), values
