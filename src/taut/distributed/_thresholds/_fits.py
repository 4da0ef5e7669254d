"""Quantiles of distributions fitted to exceedances by their moments.

Source: An Efficient Statistical-based Gradient Compression Technique for Distributed Training Systems (MLSys 2021).
Every function gives the excess that a share of the fitted distribution goes beyond; a share above 1 extrapolates to
below the threshold.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

from taut.distributed._thresholds._magnitudes import Moments
from taut.errors import ArgumentError

Fit: TypeAlias = Literal["exponential", "pareto", "gamma-pareto"]
"""SIDCo-E, SIDCo-P and SIDCo-GP: the last fits a gamma distribution to the whole and a Pareto one to each tail."""


def check_fit(fit: str) -> None:
    """Refuse the name of no fit.

    Raises:
        ArgumentError: it is none.
    """
    if fit not in get_args(Fit):
        raise ArgumentError("fit", fit, expected=" or ".join(get_args(Fit)))


def exponential_excess(moments: Moments, share: float) -> float:
    """Of the exponential distribution of this mean."""
    return -moments.mean * math.log(share)


def pareto_excess(moments: Moments, share: float) -> float:
    """Of the generalised Pareto distribution of this mean and variance; a constant has its mean everywhere."""
    if moments.variance <= 0 or moments.mean <= 0:
        return moments.mean
    squares = moments.mean**2 / moments.variance
    shape, scale = 0.5 * (squares - 1), 0.5 * moments.mean * (squares + 1)  # the shape is that of 1 - shape * x
    if abs(shape) < 1e-9:
        return -scale * math.log(share)
    exponent = min(shape * math.log(share), 700.0)  # exp would overflow
    return -scale * math.expm1(exponent) / shape


def gamma_excess(moments: Moments, share: float, *, exact: bool = True) -> float:
    """Of the gamma distribution of this mean and mean logarithm, for moments over threshold 0.

    Args:
        moments: with the mean logarithm.
        share: in (0, 1).
        exact: invert the incomplete gamma function; else by the paper's asymptotic form, which is good for small shares
            only.
    """
    spread = math.log(moments.mean) - moments.mean_logarithm if moments.mean > 0 else 0.0
    if not spread > 1e-9:  # a constant
        return moments.mean
    shape = (3 - spread + math.sqrt((spread - 3) ** 2 + 24 * spread)) / (12 * spread)
    scale = moments.mean / shape
    if exact:
        from scipy.special import gammainccinv

        return scale * float(gammainccinv(shape, share))
    return max(0.0, -scale * (math.log(share) + math.lgamma(shape)))


def tail_excess(fit: Fit, moments: Moments, share: float) -> float:
    """By the distribution that a fit has for a tail."""
    return exponential_excess(moments, share) if fit == "exponential" else pareto_excess(moments, share)


def whole_excess(fit: Fit, moments: Moments, share: float, *, exact: bool = True) -> float:
    """By the distribution that a fit has for all magnitudes."""
    return gamma_excess(moments, share, exact=exact) if fit == "gamma-pareto" else tail_excess(fit, moments, share)
