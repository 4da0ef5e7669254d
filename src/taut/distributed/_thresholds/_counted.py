"""Estimation that counts what it has reached."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass

import torch

from taut.distributed._thresholds._estimator import without_estimate
from taut.distributed._thresholds._fits import Fit, check_fit, tail_excess, whole_excess
from taut.distributed._thresholds._magnitudes import Magnitudes
from taut.errors import ArgumentError

_RELATIVE = "relative_threshold"


@dataclass(frozen=True, slots=True)
class CountedThreshold:
    """SIDCo's fits with as many stages as the counts ask for.

    A stage's pass over the tail counts it, so the next stage aims at what is wanted of that count, not of the count
    that the fit had promised; stages end where the count is near enough. Counts on both sides enclose the threshold,
    whatever the distribution is. The search begins at the threshold of the step before, in units of the mean.

    Attributes:
        fit: which distributions.
        tolerance: the count may miss what is wanted by this share.
        passes: over the tensor at most, beside the one for the whole.
        first_share: of entries above the first threshold, where there is no step before.

    Raises:
        ArgumentError: a setting is out of range.
    """

    fit: Fit = "pareto"
    tolerance: float = 0.1
    passes: int = 8
    first_share: float = 0.25

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if not 0 <= self.tolerance < 1:
            raise ArgumentError("tolerance", self.tolerance, expected="a number from 0 to below 1")
        if self.passes < 1:
            raise ArgumentError("passes", self.passes, expected="1 or more")
        if not 0 < self.first_share < 1:
            raise ArgumentError("first_share", self.first_share, expected="a number between 0 and 1, both exclusive")

    @property
    def logarithms(self) -> bool:
        """Whether the fit needs the mean logarithm."""
        return self.fit == "gamma-pareto"

    def find(self, magnitudes: Magnitudes, kept: int, state: MutableMapping[str, torch.Tensor]) -> float:
        """As `ThresholdEstimator.find`; one entry at least lies above, if one is wanted and one is not 0."""
        whole = magnitudes.above(0.0, logarithms=self.logarithms and _RELATIVE not in state)
        known = without_estimate(whole, kept)
        if known is not None:
            return known
        if _RELATIVE in state:
            threshold = float(state[_RELATIVE]) * whole.mean
        else:
            threshold = whole_excess(self.fit, whole, max(self.first_share, kept / whole.count))
        threshold = self._search(magnitudes, kept, whole.count, threshold)
        state[_RELATIVE] = torch.tensor(threshold / whole.mean, dtype=torch.float64)
        return threshold

    def record(self, kept: int, above: int, state: MutableMapping[str, torch.Tensor]) -> None:
        """As `ThresholdEstimator.record`; the search has counted already."""

    def _search(self, magnitudes: Magnitudes, kept: int, count: int, threshold: float) -> float:
        """The nearest threshold that was tried."""
        low, high = (0.0, count), (math.inf, 0)
        best = low
        for _ in range(self.passes):
            tail = magnitudes.above(threshold)
            here = threshold, tail.count
            best = min(best, here, key=lambda end: abs(math.log(end[1] / kept)) if end[1] else math.inf)
            if abs(tail.count - kept) <= self.tolerance * kept:
                break
            if tail.count > kept:
                low = here
            else:
                high = here
            if tail.count:
                threshold += tail_excess(self.fit, tail, kept / tail.count)
            if high[1] or not low[0] < threshold < high[0]:
                threshold = _between(low, high, kept)
        return best[0]


def _between(low: tuple[float, int], high: tuple[float, int], kept: int) -> float:
    """Between two thresholds with their counts, as if the logarithm of the count were linear."""
    if math.isinf(high[0]):
        return low[0] * 2  # the fit had the tail end below the threshold
    weight = math.log(low[1] / kept) / math.log(low[1] / high[1]) if high[1] else 0.5
    return low[0] + (high[0] - low[0]) * weight
