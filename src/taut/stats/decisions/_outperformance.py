"""Is A better than B?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from taut.errors import ArgumentError, DataError
from taut.stats._quantile import Interval
from taut.stats.decisions import _all_pairs
from taut.stats.decisions._all_pairs_bootstrap import bootstrap_interval
from taut.stats.decisions._correlated import tail_probability
from taut.stats.decisions._intervals import Method, paired_interval
from taut.stats.decisions._rule import Decision, check_settings, judge, undecidable
from taut.stats.decisions._scores import as_scores


@dataclass(frozen=True)
class Outperformance:
    """The outcome of `outperformance`.

    Attributes:
        verdict: "A better", "B better", "significant but not meaningful", "not significant" or "cannot decide".
        reason: why, in a sentence.
        interval: P(A>B) with half of the ties, and both ends; 0 and 1 where nothing can be decided.
        wins: P(A>B), ties not counted. `wins + losses + ties` is 1.
        losses: P(B>A), ties not counted.
        ties: probability that both are equal.
        p_value: two-sided, of P(A>B) = 1/2: the sign test of paired runs, else that of all pairs; both
            allow for the correlation. 1 where nothing can be decided.
        paired: whether run i of A was compared with run i of B only.
        sizes: numbers of runs of A and of B.
        gamma: the least P(A>B) that is worth a change.
        alpha: the error probability of the interval.
        correlation: that was assumed between runs of one system.
    """

    verdict: Decision
    reason: str
    interval: Interval
    wins: float
    losses: float
    ties: float
    p_value: float
    paired: bool
    sizes: tuple[int, int]
    gamma: float
    alpha: float
    correlation: float

    @property
    def estimate(self) -> float:
        """P(A>B) with half of the ties."""
        return self.interval.estimate

    def summary(self) -> str:
        """One line for people."""
        low, high = self.interval.low, self.interval.high
        return (
            f"{self.verdict}: P(A>B) = {self.estimate:.3f} [{low:.3f}, {high:.3f}] at {100 * (1 - self.alpha):g} %, "
            f"{' and '.join(map(str, self.sizes))} {'paired' if self.paired else 'unpaired'} runs; {self.reason}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON data."""
        return {**asdict(self), "sizes": list(self.sizes)}


def outperformance(
    a: ArrayLike,
    b: ArrayLike,
    *,
    paired: bool,
    gamma: float = 0.75,
    alpha: float = 0.05,
    correlation: float = 0.0,
    method: Method = "recommended",
    lower_is_better: bool = False,
) -> Outperformance:
    """Estimate P(A>B), the probability that a run of A scores better than one of B, and decide by it.

    Paired runs (the same seeds, so the same splits) give the share of pairs that A wins, with the closed form of the
    percentile bootstrap, or the exact interval where the bootstrap degenerates, see `decide`. Unpaired runs
    give the share of all n m pairs, as so many independent ones as have Brunner and Munzel's variance; their order does
    not matter.

    Runs that share one hyper-parameter search are correlated, and without a `correlation` the decision calls up to
    a third of equal systems different. With it the interval is that of a normal model with the floor
    Var(mean) = V/k + (k-1)/k rho V, and the wrong verdicts at P(A>B) = 1/2 together have probability alpha again.
    Source: "Accounting for Variance in Machine Learning Benchmarks" (2021), sections 3.2 and 4.

    Args:
        a: shape (n,), scores of A.
        b: shape (m,), scores of B; in the order of A's seeds if paired.
        paired: whether a[i] and b[i] belong together.
        gamma: the least P(A>B) that is worth a change, between 0.5 and 1.
        alpha: error probability of the two-sided interval.
        correlation: between runs of one system (paired: between their differences); 0 if every run had its own
            search, else from `correlation_from_repetitions`.
        method: of the interval; "wilson" and "clopper-pearson" are for paired runs only, and "percentile" is the
            bootstrap, of pairs or of both samples, that other tools compute by resampling.
        lower_is_better: whether the better score is the lower one, as for losses.

    Raises:
        ArgumentError: a setting is out of range, or a method does not go with the others.
        DataError: scores are not finite numbers, or paired lengths differ.
    """
    check_settings(gamma, alpha, correlation, method)
    if not paired and method not in ("recommended", "percentile"):
        raise ArgumentError("method", method, expected='"recommended" or "percentile" for unpaired runs')
    scores_a, scores_b = as_scores("A", a), as_scores("B", b)
    if paired and len(scores_a) != len(scores_b):
        raise DataError(
            f"A has {len(scores_a)} runs and B {len(scores_b)}, so they are not pairs",
            expected="as many scores of B as of A when paired",
            fix="leave out the runs without a partner (pair_by_seed does it), or compare unpaired",
        )
    if lower_is_better:
        scores_a, scores_b = -scores_a, -scores_b
    sizes = (len(scores_a), len(scores_b))
    settings = (paired, sizes, gamma, alpha, correlation)
    if paired:
        wins, ties = int(np.sum(scores_a > scores_b)), int(np.sum(scores_a == scores_b))
        losses = sizes[0] - wins - ties
        shares = (wins / sizes[0], losses / sizes[0], ties / sizes[0])
        hindrance = obstacle(scores_a, scores_b) or _too_few_pairs(sizes[0], ties, alpha, correlation, method)
        if hindrance:
            return _undecided(hindrance, shares, settings)
        low, high = paired_interval(wins, sizes[0], alpha, ties=ties, correlation=correlation, method=method)
        rarer = tail_probability(max(wins, losses), wins + losses, 0.0, correlation)
        p_value = min(1.0, 2 * rarer)
    else:
        hindrance = obstacle(scores_a, scores_b)
        found = _all_pairs.superiority(scores_a, scores_b) if min(sizes) > 1 else None
        if hindrance or found is None:
            below = np.sort(scores_b)
            share = float(np.mean(np.searchsorted(below, scores_a, "left"))) / sizes[1]
            upto = float(np.mean(np.searchsorted(below, scores_a, "right"))) / sizes[1]
            return _undecided(hindrance, (share, 1 - upto, upto - share), settings)
        shares = (found.wins, 1 - found.wins - found.ties, found.ties)
        if method == "percentile":
            low, high = bootstrap_interval(scores_a, scores_b, alpha)
        else:
            low, high = _all_pairs.interval(found, alpha, correlation)
        p_value = _all_pairs.p_value(found, correlation)
    verdict = judge(low, high, gamma)
    estimate = Interval(shares[0] + shares[2] / 2, low, high, 1 - alpha)
    return Outperformance(verdict, _reason(verdict, low, high, gamma), estimate, *shares, p_value, *settings)


def _undecided(reason: str, shares: tuple[float, float, float], settings: tuple[Any, ...]) -> Outperformance:
    estimate = Interval(shares[0] + shares[2] / 2, 0.0, 1.0, 1 - settings[3])
    return Outperformance("cannot decide", reason, estimate, *shares, 1.0, *settings)


def obstacle(a: np.ndarray, b: np.ndarray) -> str:
    """Why these scores carry no decision, or an empty text."""
    if min(len(a), len(b)) == 1:
        return "one run says nothing about the next"
    if a.min() == a.max() and b.min() == b.max():
        return "all runs of each system have the same score, so nothing varied between them; do the seeds reach them?"
    return ""


def _too_few_pairs(n: int, ties: int, alpha: float, correlation: float, method: Method) -> str:
    untied = n - ties
    if not undecidable(untied, alpha, correlation, method):
        return ""
    shared = f" with a correlation of {correlation:.3g}" if correlation else ""
    if untied == n:
        return f"with {n} pairs{shared} not even winning all of them would be significant"
    if untied == 0:
        return f"none of the {n} pairs differ"
    return f"only {untied} of {n} pairs differ; not even winning all of them{shared} would be significant"


def _reason(verdict: Decision, low: float, high: float, gamma: float) -> str:
    if verdict == "not significant":
        return "the interval includes 1/2"
    if verdict == "significant but not meaningful":
        side, end = ("A", high) if low > 0.5 else ("B", 1 - low)
        return f"{side} is ahead, but with a probability of at most {end:.3f}, not above gamma = {gamma:g}"
    return f"the interval excludes 1/2 and reaches beyond gamma = {gamma:g}"
