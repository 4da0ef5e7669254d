"""Magnitudes by the native kernels."""

from __future__ import annotations

import math

import torch

from taut import kernels
from taut.distributed._thresholds._magnitudes import Moments


class AccumulatedMagnitudes:
    """Magnitudes of residual plus gradient, the moments of which are taken in the pass that adds them.

    Args:
        gradient: (elements,) float32, contiguous.
        residual: (elements,) float32, contiguous; the gradient is added to it.
        logarithms: take the mean logarithm too, see `ThresholdEstimator.logarithms`.

    Raises:
        KernelError: a tensor is not as above.
    """

    def __init__(self, gradient: torch.Tensor, residual: torch.Tensor, *, logarithms: bool = False) -> None:
        found = kernels.accumulate_moments(gradient, residual, log=logarithms)
        share = found.count / found.nonzero if found.nonzero else 0.0  # zeros do not count
        mean = found.mean * share if math.isfinite(found.mean) else math.nan
        self._whole = Moments(found.nonzero, mean, max(found.second * share - mean**2, 0.0), found.mean_log)
        self._residual = residual
        self.passes = 1

    def above(self, threshold: float, *, logarithms: bool = False) -> Moments:
        """Moments of the magnitudes above a threshold; NaN is above each."""
        if threshold == 0:
            return self._whole
        self.passes += 1
        # The kernel takes finite thresholds; nothing finite lies above the largest.
        found = kernels.exceedance_moments(self._residual, min(threshold, torch.finfo(torch.float32).max))
        return Moments(found.count, found.mean, max(found.second - found.mean**2, 0.0))
