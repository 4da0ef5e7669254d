"""The bootstrap for differences in quality between two models on the same samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from taut.errors import ArgumentError, MeasurementError
from taut.stats._quantile import Interval

# Correcting for skew and bias costs one evaluation per sample. The correction fades with 1 / sqrt(n), and above this
# size it is smaller than the noise of the resampling itself.
_LARGEST_CORRECTED = 500


def paired_bootstrap(
    difference: Callable[[np.ndarray], float],
    n: int,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    bounded: bool = False,
) -> Interval:
    """Interval for a difference in quality when both models see the same `n` samples.

    Samples are drawn with replacement, the same ones for both models. The interval is bias-corrected and accelerated
    (Efron, Better Bootstrap Confidence Intervals, 1987) up to 500 samples and the percentile interval above.

    Where no resample differs from another the interval has no width. That is honest only if the difference is the
    same for every possible sample. For a mean of differences per sample between -1 and 1 (accuracy, exact match, top-k)
    set `bounded`: samples of a kind that did not occur in `n` draws have a share of at most 1 - (tail)^(1/n) (the rule
    of three), so neither end is then nearer to the estimate than that.

    Args:
        difference: from indices, shape (n,) int64, to the candidate's quality minus the baseline's on these samples.
        n: number of samples.
        resamples: how often to draw.
        confidence: probability with which the interval is meant to hold.
        seed: of the draws.
        bounded: whether the difference is a mean of differences per sample between -1 and 1.

    Raises:
        ArgumentError: if `n`, `resamples` or `confidence` is out of range.
        MeasurementError: if the difference is not a finite number on the samples or on a resample.
    """
    for name, value, least in (("n", n, 2), ("resamples", resamples, 100)):
        if value < least:
            raise ArgumentError(name, value, expected=f"{least} or more")
    if not 0 < confidence < 1:
        raise ArgumentError("confidence", confidence, expected="a number between 0 and 1, exclusive")

    def evaluate(indices: np.ndarray) -> float:
        value = float(difference(indices))
        if not math.isfinite(value):
            raise MeasurementError(
                f"the difference in quality is {value} on {len(np.unique(indices))} distinct samples of {n}",
                expected="a finite number on every resample",
                fix="give more samples, or a metric that is defined on each selection of them",
            )
        return value

    generator = np.random.default_rng(seed)
    everything = np.arange(n)
    estimate = evaluate(everything)
    draws = np.sort([evaluate(generator.integers(0, n, n)) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    levels = (tail, 1 - tail)
    if n <= _LARGEST_CORRECTED and draws[0] < draws[-1]:
        left_out = np.array([evaluate(np.delete(everything, index)) for index in everything])
        levels = _corrected_levels(draws, estimate, left_out, tail)
    low, high = (float(np.quantile(draws, level)) for level in levels)
    if bounded:
        unseen = 1 - tail ** (1 / n)
        low, high = max(-1.0, min(low, estimate - unseen)), min(1.0, max(high, estimate + unseen))
    return Interval(estimate, low, high, confidence)


def _corrected_levels(draws: np.ndarray, estimate: float, left_out: np.ndarray, tail: float) -> tuple[float, float]:
    """Levels of the draws at which the corrected interval ends; draws: (resamples,), left_out: (n,)."""
    from scipy.special import ndtr, ndtri

    # Discrete statistics tie with the estimate often; half of the ties count as below.
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / len(draws)
    bias = ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    influence = left_out.mean() - left_out
    scale = float(np.sum(influence**2))
    acceleration = float(np.sum(influence**3)) / (6 * scale**1.5) if scale > 0 else 0.0
    shifted = bias + ndtri(np.array([tail, 1 - tail]))
    # Beyond the pole, which only extreme levels of a very skewed statistic reach, the level is 0 or 1.
    low, high = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-9))
    return float(low), float(high)
