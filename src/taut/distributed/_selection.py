"""Which entries are sent: all operations of the compressors that have a native kernel."""

from __future__ import annotations

import torch


def select_largest(gradient: torch.Tensor, residual: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a gradient to a residual and take its largest entries out; NaN counts as the largest.

    Args:
        gradient: (elements,).
        residual: (elements,); written.
        kept: how many, at most `elements`.

    Returns:
        Indices, (kept,) int32 ascending, and values.
    """
    residual += gradient
    indices = residual.abs().topk(kept, sorted=False).indices.sort().values
    return _take(residual, indices)


def select_above(gradient: torch.Tensor, residual: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a gradient to a residual and take the entries out whose magnitude is above a threshold, and NaN.

    Args:
        gradient: (elements,).
        residual: (elements,); written.
        threshold: at least 0.

    Returns:
        Indices, (kept,) int32 ascending, and values.
    """
    residual += gradient
    return _take(residual, (~(residual.abs() <= threshold)).nonzero().flatten())


def scatter_add(dense: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, scale: float) -> None:
    """Add scaled values at distinct places, (kept,) int32, of a tensor, (elements,)."""
    dense.index_add_(0, indices, (values.to(torch.float32) * scale).to(dense.dtype))


def _take(residual: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = residual[indices]
    residual[indices] = 0
    return indices.to(torch.int32), values


def pack_signs(values: torch.Tensor) -> torch.Tensor:
    """The signs of (elements,) values: (ceil(elements / 8),) uint8, the first value lowest, 1 for negative ones."""
    negative = torch.nn.functional.pad(values < 0, (0, -values.numel() % 8)).view(-1, 8)
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
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    negative = ((packed[:, :, None] >> places) & 1).flatten(1)[:, :elements].sum(dim=0)
    return (packed.shape[0] - 2 * negative).sign().to(torch.float32)
