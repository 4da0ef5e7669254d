"""Quantiles, with the interval that the sample can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taut.errors import ArgumentError, MeasurementError


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it.

    Attributes:
        estimate: the most plausible value.
        low: lower end.
        high: upper end.
        confidence: probability with which the interval holds the true value, at least.
    """

    estimate: float
    low: float
    high: float
    confidence: float


def smallest_quantile_sample(q: float, confidence: float = 0.95) -> int:
    """Fewest values from which `quantile_interval` can bound the quantile `q` on both sides."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


def quantile_interval(values: Sequence[float] | np.ndarray, q: float, confidence: float = 0.95) -> Interval:
    """Interval between two order statistics that holds the quantile `q` whatever the distribution is.

    Each end misses with at most (1 - confidence) / 2. Source: Hahn and Meeker, Statistical Intervals, section 5.2.

    Args:
        values: shape (n,), independent draws.
        q: which quantile, between 0 and 1, both exclusive.
        confidence: the wanted coverage; the one in the result is at least that.

    Raises:
        ArgumentError: if `q` or `confidence` is not between 0 and 1.
        MeasurementError: if the sample is too small, or a value is not finite.
    """
    for name, value in (("q", q), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ArgumentError(name, value, expected="a number between 0 and 1, exclusive")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.ndim != 1 or not np.isfinite(ordered).all():
        raise MeasurementError(
            f"quantile {q:g}: got values of shape {ordered.shape}, not all of them finite numbers in a row",
            expected="a sequence of finite numbers",
        )
    n, needed = len(ordered), smallest_quantile_sample(q, confidence)
    if n < needed:
        raise MeasurementError(
            f"quantile {q:g}: {n} values cannot bound it at {100 * confidence:g} % confidence",
            expected=f"{needed} values or more",
            fix="measure longer, or report a quantile nearer to the median",
        )
    from scipy.stats import binom

    # B values lie below the quantile, B ~ Binomial(n, q): the order statistic of rank r exceeds it if B < r.
    tail = (1 - confidence) / 2
    below = binom.cdf(np.arange(n + 1), n, q)  # P(B <= b), shape (n + 1,)
    low_rank = int(np.searchsorted(below, tail * (1 + 1e-12), side="right"))
    high_rank = int(np.searchsorted(below, (1 - tail) * (1 - 1e-12), side="left")) + 1
    coverage = float(below[high_rank - 1] - below[low_rank - 1])
    return Interval(
        float(np.quantile(ordered, q)),
        float(ordered[low_rank - 1]),
        float(ordered[high_rank - 1]),
        coverage,
    )
