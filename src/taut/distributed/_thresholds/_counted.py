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
        enclosure = _Enclosure(kept, count)
        best, nearest = 0.0, math.log(count / kept)
        for _ in range(self.passes):
            tail = magnitudes.above(threshold)
            distance = abs(math.log(tail.count / kept)) if tail.count else math.inf
            if distance < nearest:
                best, nearest = threshold, distance
            if abs(tail.count - kept) <= self.tolerance * kept:
                break
            enclosure.narrow(threshold, tail.count)
            # Upwards the fit has seen the tail that it goes into, downwards it has not.
            proposed = threshold + tail_excess(self.fit, tail, kept / tail.count) if tail.count else math.nan
            threshold = (
                proposed if tail.count > kept and enclosure.low < proposed < enclosure.high else enclosure.between()
            )
        return best


class _Enclosure:
    """A threshold that too many exceed and one that too few do, weighted for the secant between them.

    Source: Dowell and Jarratt, A modified regula falsi method for computing the root of an equation (BIT, 1971): the
    weight of an end that stays is halved, so that it does not stay for ever.

    Args:
        kept: how many are wanted.
        count: how many are above 0.
    """

    def __init__(self, kept: int, count: int) -> None:
        self._kept = kept
        self.low, self.low_weight = 0.0, math.log(count / kept)
        self.high, self._high_weight = math.inf, 0.0
        self._moved = ""

    def narrow(self, threshold: float, count: int) -> None:
        """Take up what was counted at a threshold inside."""
        weight = math.log(max(count, 0.5) / self._kept)
        if weight > 0:
            self.low, self.low_weight = threshold, weight
            self._high_weight /= 2 if self._moved == "low" else 1
            self._moved = "low"
        else:
            self.high, self._high_weight = threshold, weight
            self.low_weight /= 2 if self._moved == "high" else 1
            self._moved = "high"

    def between(self) -> float:
        """Where the logarithm of the count would reach what is wanted, were it linear."""
        if math.isinf(self.high):
            return self.low * 2  # the fit had the tail end below the threshold
        return self.low + (self.high - self.low) * self.low_weight / (self.low_weight - self._high_weight)
