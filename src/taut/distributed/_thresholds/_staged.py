"""Estimation in a number of stages, as in the paper."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass

import torch

from taut.distributed._thresholds._estimator import without_estimate
from taut.distributed._thresholds._fits import Fit, check_fit, tail_excess, whole_excess
from taut.distributed._thresholds._magnitudes import Magnitudes
from taut.errors import ArgumentError

_STAGES, _MOST_STAGES = "threshold_stages", "threshold_most_stages"
_STEP, _ACHIEVED = "threshold_steps", "threshold_achieved"

_STEPS = 5  # between changes of the number of stages
_HIGH, _LOW = 1.2, 0.8


@dataclass(frozen=True, slots=True)
class StagedThreshold:
    """SIDCo: a distribution fitted to all magnitudes, then to those above the last threshold, and so on.

    Source: An Efficient Statistical-based Gradient Compression Technique for Distributed Training Systems (MLSys 2021).
    The number of stages changes by the paper's rule, which can go the wrong way (docs/decisions/0017), and nothing is
    sent at a step whose threshold is above all entries. `CountedThreshold` mends both.

    Attributes:
        fit: which distributions.
        stages: at the first step.
        adaptive: change the number of stages every 5 steps, one down where more entries than wanted were above the
            threshold by 20 % on average, one up where fewer were.
        first_share: of entries above the threshold of the first of several stages.
        exact: invert the incomplete gamma function where the fit needs it, instead of the paper's asymptotic form.

    Raises:
        ArgumentError: a setting is out of range.
    """

    fit: Fit = "exponential"
    stages: int = 1
    adaptive: bool = True
    first_share: float = 0.25
    exact: bool = True

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if self.stages < 1:
            raise ArgumentError("stages", self.stages, expected="1 or more")
        if not 0 < self.first_share < 1:
            raise ArgumentError("first_share", self.first_share, expected="a number between 0 and 1, both exclusive")

    @property
    def logarithms(self) -> bool:
        """Whether the fit needs the mean logarithm."""
        return self.fit == "gamma-pareto"

    def find(self, magnitudes: Magnitudes, kept: int, state: MutableMapping[str, torch.Tensor]) -> float:
        """As `ThresholdEstimator.find`; one pass a stage, and one for the whole."""
        stages = int(state[_STAGES]) if _STAGES in state else self.stages
        threshold, ratio = staged_threshold(
            magnitudes, kept, stages, self.fit, first_share=self.first_share, exact=self.exact
        )
        state[_STAGES] = torch.tensor(stages)
        if ratio is None:
            state.pop(_MOST_STAGES, None)  # nothing for `record` to judge
        else:
            state[_MOST_STAGES] = torch.tensor(most_stages(ratio))
        return threshold

    def record(self, kept: int, above: int, state: MutableMapping[str, torch.Tensor]) -> None:
        """As `ThresholdEstimator.record`."""
        if not (self.adaptive and kept and _MOST_STAGES in state):
            return
        steps = int(state.get(_STEP, 0)) + 1
        total = float(state.get(_ACHIEVED, 0.0)) + above / kept
        if steps == _STEPS:
            change = (total / steps < _LOW) - (total / steps > _HIGH)
            stages = min(max(int(state[_STAGES]) + change, 1), int(state[_MOST_STAGES]))
            state[_STAGES] = torch.tensor(stages)
            steps, total = 0, 0.0
        state[_STEP], state[_ACHIEVED] = torch.tensor(steps), torch.tensor(total, dtype=torch.float64)


def most_stages(ratio: float) -> int:
    """The paper's limit for a ratio: a stage halves at least."""
    return max(1, math.ceil(-math.log2(ratio)))


def staged_threshold(
    magnitudes: Magnitudes,
    kept: int,
    stages: int,
    fit: Fit,
    *,
    first_share: float = 0.25,
    exact: bool = True,
) -> tuple[float, float | None]:
    """One estimate by the paper's formulas; zeros are left out of the fit, as they have no logarithm.

    Args:
        magnitudes: of which to estimate.
        kept: how many are wanted above the threshold.
        stages: 1 or more.
        fit: which distributions.
        first_share: of the first of several stages.
        exact: as in `StagedThreshold`.

    Returns:
        The threshold, and the wanted share of the entries that are not 0; no share where nothing was estimated.
    """
    whole = magnitudes.above(0.0, logarithms=fit == "gamma-pareto")
    known = without_estimate(whole, kept)
    if known is not None:
        return known, None
    ratio = kept / whole.count
    first = ratio if stages == 1 else max(first_share, ratio)
    later = (ratio / first) ** (1 / max(stages - 1, 1))
    threshold = whole_excess(fit, whole, first, exact=exact)
    for _ in range(stages - 1):
        tail = magnitudes.above(threshold)
        if tail.count:
            threshold += tail_excess(fit, tail, later)
    return threshold, ratio
