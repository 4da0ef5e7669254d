"""Standard deviations, their ratios and the correlation of biased scores, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from taut.errors import ArgumentError, MeasurementError
from taut.stats._quantile import Interval
from taut.stats.decisions import correlation_from_repetitions


@dataclass(frozen=True)
class CorrelatedScores:
    """What repetitions of a biased estimator say about its scores.

    Attributes:
        k: scores of one repetition.
        repetitions: how many.
        variance: of one score over all that is random, V.
        rho: correlation of two scores of one repetition; the floor of the mean's variance is rho V.
        std_of_mean: standard deviation of the mean of k scores, sqrt(V / k + (k - 1) / k rho V), as observed, with an
            interval.
    """

    k: int
    repetitions: int
    variance: float
    rho: Interval
    std_of_mean: Interval


def standard_deviation(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Sample standard deviation (n - 1) and its chi-square interval, exact for normal scores.

    Args:
        values: shape (n,), independent scores.
        confidence: of the interval.

    Raises:
        MeasurementError: if there are fewer than two scores, or one is not finite.
    """
    from scipy.stats import chi2

    scores = _scores(values, 2)
    degrees = len(scores) - 1
    deviation = float(deviations(scores))
    tail = (1 - confidence) / 2
    low, high = (deviation * math.sqrt(degrees / chi2.ppf(p, degrees)) for p in (1 - tail, tail))
    return Interval(deviation, low, high, confidence)


def bootstrap_deviation(
    values: np.ndarray, confidence: float = 0.95, *, resamples: int = 4000, seed: int = 0
) -> Interval:
    """Sample standard deviation and its bootstrap percentile interval, which assumes no distribution.

    It is somewhat too short for small samples, of scores with long tails above all.

    Args:
        values: shape (n,), independent scores.
        confidence: of the interval.
        resamples: how many.
        seed: of the resampling.

    Raises:
        MeasurementError: as `standard_deviation`.
    """
    scores = _scores(values, 2)
    drawn = np.random.default_rng(seed).choice(scores, (resamples, len(scores)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(deviations(drawn), [tail, 1 - tail])
    return Interval(float(deviations(scores)), float(low), float(high), confidence)


def deviation_ratio(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Interval:
    """Ratio of two standard deviations of paired scores, std(a) / std(b), with Pitman and Morgan's interval.

    Exact for normal scores whatever their correlation is.

    Args:
        a: shape (n,).
        b: shape (n,), the partner of every score of `a`.
        confidence: of the interval.

    Raises:
        ArgumentError: if the lengths differ.
        MeasurementError: if there are fewer than three pairs, or the scores of `b` are all equal.
    """
    from scipy.stats import t

    if len(a) != len(b):
        raise ArgumentError("a, b", (len(a), len(b)), expected="as many scores in both")
    first, second = _scores(a, 3), _scores(b, 3)
    below = float(deviations(second))
    if below == 0:
        raise MeasurementError("the scores of b are all equal: a ratio to their deviation says nothing")
    ratio = float(deviations(first)) / below
    if ratio == 0:
        return Interval(0.0, 0.0, 0.0, confidence)
    correlation = float(np.corrcoef(first, second)[0, 1])
    degrees = len(first) - 2
    quantile = float(t.ppf((1 + confidence) / 2, degrees))
    kappa = 1 + 2 * max(0.0, 1 - correlation**2) * quantile**2 / degrees
    spread = kappa + math.sqrt(kappa**2 - 1)
    return Interval(ratio, ratio / math.sqrt(spread), ratio * math.sqrt(spread), confidence)


def correlated_scores(scores: np.ndarray, confidence: float = 0.95) -> CorrelatedScores:
    """Variance, correlation and standard deviation of the mean from repetitions of a biased estimator.

    V is the variance of a score over all that is random, so that Var(mean) = V / k + (k - 1) / k rho V (Accounting for
    Variance in Machine Learning Benchmarks, MLSys 2021, equation 7) unless the means vary even less than V / k. The
    intervals are exact for normal scores.

    Args:
        scores: shape (repetitions, k).
        confidence: of the intervals.

    Raises:
        DataError: if there are fewer than two repetitions or two scores in each, or these do not differ.
    """
    table = np.asarray(scores, dtype=float)
    rho = correlation_from_repetitions(table, confidence)
    repetitions, k = table.shape
    deviation = standard_deviation(table.mean(axis=1), confidence)
    within = float(table.var(axis=1, ddof=1).mean())
    return CorrelatedScores(k, repetitions, deviation.estimate**2 + (k - 1) / k * within, rho, deviation)


def shares_of_first_place(groups: list[np.ndarray], *, resamples: int = 4000, seed: int = 0) -> list[float]:
    """In which share of bootstrap resamples each group has the largest standard deviation.

    Raises:
        MeasurementError: as `standard_deviation`.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        deviations(generator.choice(scores, (resamples, len(scores))))
        for scores in (_scores(group, 2) for group in groups)
    ]
    first = np.argmax(np.stack(drawn), axis=0)
    return [float(np.mean(first == index)) for index in range(len(groups))]


def deviations(scores: np.ndarray) -> np.ndarray:
    """Sample standard deviation over the last axis; exactly 0 where all scores are equal, which rounding may miss."""
    return np.where(np.ptp(scores, axis=-1) > 0, scores.std(axis=-1, ddof=1), 0.0)


def _scores(values: np.ndarray, least: int) -> np.ndarray:
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1 or len(scores) < least:
        raise MeasurementError(
            f"{scores.size} score(s) say nothing about variance", expected=f"a list of at least {least}"
        )
    if not np.isfinite(scores).all():
        raise MeasurementError("a score is not finite", fix="leave failed runs out, and say how many there were")
    return scores
