"""What an estimator of thresholds is."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Protocol

import torch

from taut.distributed._thresholds._magnitudes import Magnitudes, Moments

# Nothing but infinities and NaN lies above, so that these are sent and nothing else is.
_LARGEST = torch.finfo(torch.float32).max


class ThresholdEstimator(Protocol):
    """Finds a threshold that about a wanted number of magnitudes exceeds.

    Attributes:
        logarithms: whether it asks for the mean logarithm of the whole.
    """

    @property
    def logarithms(self) -> bool: ...

    def find(self, magnitudes: Magnitudes, kept: int, state: MutableMapping[str, torch.Tensor]) -> float:
        """The threshold; entries above it are to be sent.

        Args:
            magnitudes: of gradient plus residual.
            kept: how many entries are wanted.
            state: of this group of parameters, from step to step; read and written.

        Returns:
            Infinity for none, 0 where there are not more non-zero entries than wanted, and the largest finite float32
            if an entry is NaN or infinite, so that these are sent at once.
        """
        ...

    def record(self, kept: int, above: int, state: MutableMapping[str, torch.Tensor]) -> None:
        """Take note of how many entries were above the threshold found."""
        ...


def without_estimate(whole: Moments, kept: int) -> float | None:
    """The threshold where nothing has to be estimated, from the moments above 0."""
    if not whole.finite:
        return _LARGEST
    if not kept:
        return float("inf")
    return 0.0 if whole.count <= kept else None
