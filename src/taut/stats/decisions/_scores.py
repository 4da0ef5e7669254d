"""Reading the arguments: what counts as scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from taut.errors import ArgumentError, DataError


def as_scores(name: str, scores: ArrayLike) -> np.ndarray:
    """Scores as a new float64 array of shape (n,), n at least 1.

    Raises:
        DataError: they are not numbers in a row, there are none, or one is not finite.
    """
    try:
        values = np.array(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the scores are not numbers ({error})", expected="one number for each run") from error
    if values.ndim != 1 or not len(values):
        raise DataError(f"{name}: got scores of shape {values.shape}", expected="one number for each run, in a row")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"{name}: {len(wrong)} of {len(values)} scores are not finite; the first is {values[wrong[0]]} at position "
            f"{wrong[0]} (counted from 0)",
            expected="finite scores",
            fix="give a failed run the worst score that is possible, or leave it out of both systems",
        )
    return values


def check_share(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    """Refuse a number that is not strictly between the limits.

    Raises:
        ArgumentError: it is not.
    """
    if not low < value < high:
        raise ArgumentError(name, value, expected=f"a number between {low:g} and {high:g}, both exclusive")


def check_correlation(correlation: float) -> None:
    """Refuse a correlation between runs outside of [0, 1).

    Raises:
        ArgumentError: it is outside.
    """
    if not 0 <= correlation < 1:
        raise ArgumentError(
            "correlation", correlation, expected="0 (every run has its own search) or more, and less than 1"
        )


def pair_by_seed(
    seeds_a: Sequence[Hashable], a: ArrayLike, seeds_b: Sequence[Hashable], b: ArrayLike
) -> tuple[np.ndarray, np.ndarray, int]:
    """Bring the runs of two systems into the same order of seeds.

    Args:
        seeds_a: shape (n,), the seed of each run of A, no two equal.
        a: shape (n,), scores of A.
        seeds_b: shape (m,), the seed of each run of B, no two equal.
        b: shape (m,), scores of B.

    Returns:
        Scores of A and of B, both of shape (pairs,), for the seeds that both have, in A's order; and the number of
        runs that were left out because their seed has no partner.

    Raises:
        DataError: a seed occurs twice, or no seed is in both.
    """
    scores = {}
    for name, seeds, values in (("A", seeds_a, as_scores("A", a)), ("B", seeds_b, as_scores("B", b))):
        if len(seeds) != len(values):
            raise DataError(f"{name}: {len(seeds)} seeds for {len(values)} scores", expected="one seed for each score")
        twice = [seed for seed, count in Counter(seeds).items() if count > 1]
        if twice:
            raise DataError(
                f"{name}: seed {twice[0]!r} occurs {Counter(seeds)[twice[0]]} times",
                expected="one run for each seed",
                fix="keep one run of each seed, or compare unpaired",
            )
        scores[name] = dict(zip(seeds, values, strict=True))
    common = [seed for seed in seeds_a if seed in scores["B"]]
    if not common:
        raise DataError("A and B have no seed in common", expected="the same seeds", fix="compare unpaired")
    left_out = len(scores["A"]) + len(scores["B"]) - 2 * len(common)
    paired_a, paired_b = (np.array([scores[name][seed] for seed in common]) for name in ("A", "B"))
    return paired_a, paired_b, left_out
