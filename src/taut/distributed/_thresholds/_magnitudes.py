"""What an estimator may know of a tensor: sums over its large entries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of what the magnitudes exceed a threshold by, over those that exceed it.

    Attributes:
        count: how many do.
        mean: of `a - threshold`; not finite if an entry is not.
        variance: of `a - threshold`, divided by the count.
        mean_logarithm: of ln `a`, where it was asked for.
    """

    count: int
    mean: float
    variance: float
    mean_logarithm: float = math.nan

    @property
    def finite(self) -> bool:
        """No entry is NaN or infinite."""
        return not self.count or math.isfinite(self.mean)


class Magnitudes(Protocol):
    """Absolute values of a tensor, each question about which is one pass over it."""

    def above(self, threshold: float, *, logarithms: bool = False) -> Moments:
        """Moments of the magnitudes above a threshold; NaN is above each."""
        ...


class TensorMagnitudes:
    """Magnitudes of a tensor by torch's own operations, summed in float64.

    Rising thresholds are cheap, as each pass remembers what is left for the next.

    Args:
        tensor: of any shape and floating dtype; it may not change meanwhile.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._whole = tensor.detach().reshape(-1).abs()
        self._kept, self._kept_above = self._whole, -1.0
        self.passes = 0

    def above(self, threshold: float, *, logarithms: bool = False) -> Moments:
        """Moments of the magnitudes above a threshold; NaN is above each."""
        self.passes += 1
        pool = self._kept if threshold >= self._kept_above else self._whole
        left = pool[~(pool <= threshold)]
        self._kept, self._kept_above = left, threshold
        if not len(left):
            return Moments(0, 0.0, 0.0)
        values = left.double()
        excess = values - threshold
        return Moments(
            len(left),
            excess.mean().item(),
            excess.var(correction=0).item(),
            values.log().mean().item() if logarithms else math.nan,
        )
