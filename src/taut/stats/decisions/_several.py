"""More than two systems, more than one data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from taut.errors import ArgumentError
from taut.stats._quantile import Interval
from taut.stats.decisions._outperformance import Outperformance, obstacle, outperformance
from taut.stats.decisions._rule import Decision, judge
from taut.stats.decisions._scores import as_scores

Key = TypeVar("Key")


@dataclass(frozen=True)
class AcrossDatasets:
    """The outcome of `across_datasets`.

    Attributes:
        verdict: on all data sets together.
        combined: mean of P(A>B) over the data sets, each counted once, with its interval at level 1 - alpha.
        datasets: the outcome on each, with error probabilities after Holm.
    """

    verdict: Decision
    combined: Interval
    datasets: dict[str, Outperformance]


def compare_systems(
    scores: Mapping[str, ArrayLike], *, alpha: float = 0.05, **settings: Any
) -> dict[tuple[str, str], Outperformance]:
    """Decide between all pairs of systems; any wrong verdict among equal systems has probability alpha at most.

    Holm's step-down procedure (1979) on the p-values of `outperformance`: the interval and verdict of a pair are at
    the level of its step, alpha over the number of pairs that are still open. A pair after the first that is not
    significant is at that one's level.

    Args:
        scores: of each system, shape (n,) by name; in the same order of seeds if paired.
        alpha: error probability of all verdicts together.
        settings: what `outperformance` takes, `paired` at least.

    Returns:
        The outcome of each pair of names, in the order of `scores`, the first against the second.

    Raises:
        ArgumentError: there are fewer than two systems, or a setting is out of range.
        DataError: scores are not finite numbers, or paired lengths differ.
    """
    if len(scores) < 2:
        raise ArgumentError("scores", sorted(scores), expected="two systems or more")
    return _holm({(a, b): (scores[a], scores[b]) for a, b in itertools.combinations(scores, 2)}, alpha, settings)


def across_datasets(
    scores: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    paired: bool,
    gamma: float = 0.75,
    alpha: float = 0.05,
    correlation: float = 0.0,
    **settings: Any,
) -> AcrossDatasets:
    """Decide between A and B on each data set, and on all of them together.

    Scores of different data sets have different scales and are never mixed: P(A>B) is averaged, each data set counted
    once. The interval of the mean is normal; the variance of a data set is that of a share after two more wins and
    two more losses (Agresti and Coull, 1998), which with the smaller number of runs bounds that of unpaired runs too;
    a correlation adds the variance arcsin(rho) / (2 pi) of the within-search P(A>B). Data sets with a single run, or
    on which nothing varied, are left out of the mean.

    Args:
        scores: scores of A and of B for each data set.
        paired: whether runs belong together by their position.
        gamma: the least P(A>B) that is worth a change.
        alpha: error probability; for the verdicts on single data sets all together (Holm).
        correlation: between runs of one system on one data set.
        settings: what else `outperformance` takes.

    Raises:
        ArgumentError: there is no data set, or a setting is out of range.
        DataError: scores are not finite numbers, or paired lengths differ.
    """
    if not scores:
        raise ArgumentError("scores", [], expected="one data set or more")
    common: dict[str, Any] = {"paired": paired, "gamma": gamma, "correlation": correlation, **settings}
    single = _holm(dict(scores), alpha, common)
    usable = [single[name] for name, (a, b) in scores.items() if not obstacle(as_scores("A", a), as_scores("B", b))]
    if not usable:
        return AcrossDatasets("cannot decide", Interval(0.5, 0.0, 1.0, 1 - alpha), single)
    from scipy.special import ndtri

    estimate = math.fsum(found.estimate for found in usable) / len(usable)
    variance = math.fsum(_variance(found) for found in usable) / len(usable) ** 2
    half = -float(ndtri(alpha / 2)) * math.sqrt(variance)
    low, high = max(0.0, estimate - half), min(1.0, estimate + half)
    return AcrossDatasets(judge(low, high, gamma), Interval(estimate, low, high, 1 - alpha), single)


def _variance(found: Outperformance) -> float:
    """Of one data set's P(A>B)."""
    n = min(found.sizes)
    smoothed = (found.estimate * n + 2) / (n + 4)
    return smoothed * (1 - smoothed) / n + math.asin(found.correlation) / (2 * math.pi)


def _holm(
    pairs: Mapping[Key, tuple[ArrayLike, ArrayLike]], alpha: float, settings: Mapping[str, Any]
) -> dict[Key, Outperformance]:
    p_values = {key: outperformance(*pair, alpha=alpha, **settings).p_value for key, pair in pairs.items()}
    level, stopped, found = alpha, False, {}
    for done, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        if not stopped:
            level = alpha / (len(p_values) - done)
            stopped = p_values[key] > level
        found[key] = outperformance(*pairs[key], alpha=level, **settings)
    return {key: found[key] for key in pairs}
