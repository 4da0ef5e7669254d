"""The clipping range of least relative entropy."""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 2048


def entropy_range(rows: Tensor, amax: Tensor, levels: int) -> Tensor:
    """The share of the largest magnitude at which to clip, per row.

    The histogram of magnitudes is clipped at each multiple of `levels` bins, the mass behind added to its last bin
    (the reference), and merged to `levels` equal bins, each spread over its bins that were not empty (the candidate);
    the clipping of least Kullback-Leibler divergence wins. After Migacz, "8-bit inference with TensorRT" (2017).

    Args:
        rows: `(rows, count)` float32.
        amax: `(rows,)` largest magnitudes.
        levels: magnitudes that the format tells apart, zero included.

    Returns:
        `(rows,)` float32 in (0, 1].
    """
    if levels < 3 or not rows.numel():
        return torch.ones_like(amax)
    bins = max(_BINS // levels * levels, levels) if rows.shape[0] == 1 else max(512 // levels * levels, 2 * levels)
    places = rows.abs() * (bins / amax.masked_fill(amax == 0, 1.0)).unsqueeze(1)
    histogram = torch.zeros(rows.shape[0], bins)
    places = places.to(torch.int64).clamp_(max=bins - 1)
    histogram.scatter_add_(1, places, torch.ones_like(rows))
    histogram[:, 0] = 0  # values next to zero say nothing about where to clip
    filled = (histogram > 0).float()
    best = torch.full_like(amax, torch.inf)
    chosen = torch.ones_like(amax)
    for group in range(1, bins // levels + 1):
        size = group * levels
        reference = histogram[:, :size].clone()
        kept = reference.view(-1, levels, group).sum(-1)
        reference[:, -1] += histogram[:, size:].sum(1)
        present = filled[:, :size].view(-1, levels, group)
        spread = present * (kept / present.sum(-1).clamp_(min=1)).unsqueeze(-1)
        candidate = spread.view(-1, size)
        p = reference / reference.sum(1, keepdim=True).clamp_(min=1)
        q = candidate / candidate.sum(1, keepdim=True).clamp_(min=1e-30)
        # Mass that the candidate cannot have is charged as if it had a ten-thousandth of a bin.
        terms = torch.where(p > 0, p * (p / q.clamp(min=1e-4 / bins)).log(), 0.0)
        divergence = terms.sum(1)
        better = divergence < best
        best = torch.where(better, divergence, best)
        chosen = torch.where(better, size / bins, chosen)
    return chosen
