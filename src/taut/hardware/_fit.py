"""Fitting times by sums of costs, with the uncertainty that repeated measurements leave."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from taut.errors import MeasurementError

DRAWS = 64


class Fit(NamedTuple):
    """Coefficients, (1 + draws, features), and factors, (1 + draws,), that a single prediction may be off by.

    The first row is the estimate and the first factor 1; the others are bootstrap draws.
    """

    coefficients: np.ndarray
    scatter: np.ndarray


def fit_times(
    rows: np.ndarray, seconds: np.ndarray, *, judged: np.ndarray | None = None, draws: int = DRAWS, seed: int = 0
) -> Fit:
    """Fit `seconds` by `rows @ coefficients` in relative error, with coefficients of at least 0.

    Equal rows are repetitions of one set-up. Each draw resamples the repetitions of every set-up and fits their medians
    anew; factors are drawn from what the medians of the judged set-ups are off by.

    Args:
        rows: (timings, features), at least 0; a feature that is 0 everywhere gets the coefficient 0.
        seconds: (timings,).
        judged: (timings,), whether a timing is like those that will be predicted; by default all are.
        draws: bootstrap fits.
        seed: of the resampling.

    Raises:
        MeasurementError: a time that is not positive.
    """
    if not len(seconds) or not np.isfinite(seconds).all() or not (seconds > 0).all():
        raise MeasurementError("timings that are not all positive and finite, or none at all")
    setups, place = np.unique(rows, axis=0, return_inverse=True)
    repetitions = [seconds[place == index] for index in range(len(setups))]
    medians = np.array([np.median(one) for one in repetitions])
    estimate = _solve(setups, medians)
    generator = np.random.default_rng(seed)
    fits = [estimate]
    for _ in range(draws):
        drawn = [np.median(generator.choice(one, len(one))) for one in repetitions]
        fits.append(_solve(setups, np.array(drawn)))
    errors = medians / np.maximum(setups @ estimate, 1e-12)
    if judged is not None:
        errors = errors[[bool(judged[place == index].any()) for index in range(len(setups))]]
    return Fit(np.array(fits), np.concatenate([[1.0], generator.choice(errors, draws)]))


def _solve(rows: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    from scipy.optimize import least_squares

    used = (rows != 0).any(axis=0)
    weighted = rows[:, used] / seconds[:, None]
    scale = weighted.max(axis=0)
    slopes = weighted / scale
    # A soft loss: one disturbed set-up does not bend the line for the others.
    found = least_squares(
        lambda x: slopes @ x - 1,
        np.full(slopes.shape[1], 1 / slopes.shape[1]),
        bounds=(0, np.inf),
        loss="soft_l1",
        f_scale=0.05,
    )
    result = np.zeros(rows.shape[1])
    result[used] = found.x / scale
    return result
