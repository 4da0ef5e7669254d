"""Thresholds on magnitudes that a wanted number of entries exceeds; `taut.distributed` is their face."""

from taut.distributed._thresholds._counted import CountedThreshold
from taut.distributed._thresholds._estimator import ThresholdEstimator
from taut.distributed._thresholds._fits import Fit, exponential_excess, gamma_excess, pareto_excess
from taut.distributed._thresholds._kernel_magnitudes import AccumulatedMagnitudes
from taut.distributed._thresholds._magnitudes import Magnitudes, Moments, TensorMagnitudes
from taut.distributed._thresholds._staged import StagedThreshold, most_stages, staged_threshold

__all__ = [
    "AccumulatedMagnitudes",
    "CountedThreshold",
    "Fit",
    "Magnitudes",
    "Moments",
    "StagedThreshold",
    "TensorMagnitudes",
    "ThresholdEstimator",
    "exponential_excess",
    "gamma_excess",
    "most_stages",
    "pareto_excess",
    "staged_threshold",
]
