"""How much of the variance is shared by runs of one system: the correlation that decisions need."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from taut.errors import ArgumentError, DataError
from taut.stats._quantile import Interval
from taut.stats.decisions._scores import check_share


def correlation_from_repetitions(scores: ArrayLike, confidence: float = 0.95) -> Interval:
    """Correlation between runs that share a hyper-parameter search, from several searches.

    The one-way analysis of variance with the exact interval from the F distribution (Searle, Casella and McCulloch,
    Variance Components, 1992, section 3.6). Few searches leave it wide: decide with its upper end to be safe.

    Args:
        scores: shape (r, k), k runs after each of r searches; for paired comparisons their differences A - B.
        confidence: of the two-sided interval.

    Raises:
        ArgumentError: the confidence is out of range.
        DataError: there are not at least two searches of two runs, a score is not finite, or all runs within the
            searches are equal.
    """
    check_share("confidence", confidence)
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"scores: are no table of numbers ({error})", expected="as many scores after each search (rows)"
        ) from error
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise DataError(
            f"scores: got shape {values.shape}, or scores that are not finite",
            expected="finite scores of 2 or more runs (columns) after each of 2 or more searches (rows)",
        )
    searches, runs = values.shape
    varied = np.ptp(values, axis=1) > 0  # the variance of equal scores may be off 0 by rounding
    within = float(np.mean(np.where(varied, np.var(values, axis=1, ddof=1), 0.0)))
    between = runs * float(np.var(values.mean(axis=1), ddof=1))
    if within == 0:
        raise DataError("scores: the runs after a search do not differ", expected="runs with different seeds")
    from scipy.stats import f

    tail = (1 - confidence) / 2
    freedom = searches - 1, searches * (runs - 1)
    ratios = between / within / np.array([1.0, f.ppf(1 - tail, *freedom), f.ppf(tail, *freedom)])
    estimate, low, high = (float(value) for value in np.clip((ratios - 1) / (ratios + runs - 1), 0, 1))
    return Interval(estimate, low, high, confidence)


def correlation_from_deviations(search_deviation: float, run_deviation: float) -> float:
    """Correlation between runs that share a search, from the standard deviations of both parts.

    Args:
        search_deviation: of the mean of many runs from one search to the next (sigma_epsilon).
        run_deviation: of runs after the same search.

    Raises:
        ArgumentError: one is negative or not finite, or the runs do not differ.
    """
    for name, value in (("search_deviation", search_deviation), ("run_deviation", run_deviation)):
        if not 0 <= value < np.inf:
            raise ArgumentError(name, value, expected="a finite number, 0 or more")
    if run_deviation == 0:
        raise ArgumentError("run_deviation", run_deviation, expected="more than 0, or all runs are the same run")
    return search_deviation**2 / (search_deviation**2 + run_deviation**2)


def correlation_from_means(mean_deviation: float, run_deviation: float, k: int) -> float:
    """Correlation rho that solves Var(mean) = V/k + (k-1)/k rho V; 0 where the means vary even less than V/k.

    Args:
        mean_deviation: standard deviation of the mean of k runs, from one search to the next.
        run_deviation: standard deviation sqrt(V) of single runs, each after its own search.
        k: runs in a mean, 2 or more.

    Raises:
        ArgumentError: a number is out of range, or the means vary as much as single runs.
    """
    if k < 2:
        raise ArgumentError("k", k, expected="2 or more")
    if not 0 < run_deviation < np.inf:
        raise ArgumentError("run_deviation", run_deviation, expected="a finite number above 0")
    if not 0 <= mean_deviation < run_deviation:
        raise ArgumentError(
            "mean_deviation",
            mean_deviation,
            expected=f"0 or more, and less than the deviation {run_deviation:g} of single runs",
        )
    share = (mean_deviation / run_deviation) ** 2
    return max(0.0, (k * share - 1) / (k - 1))
