"""The three-way rule."""

from __future__ import annotations

from typing import Literal

from taut.errors import ArgumentError
from taut.stats.decisions._correlated import tail_probability
from taut.stats.decisions._intervals import Method, paired_interval
from taut.stats.decisions._scores import check_correlation, check_share

Decision = Literal["A better", "B better", "significant but not meaningful", "not significant", "cannot decide"]


def judge(low: float, high: float, gamma: float) -> Decision:
    """What an interval for P(A>B) means; gamma is the least probability that is worth a change."""
    if low > 0.5:
        return "A better" if high > gamma else "significant but not meaningful"
    if high < 0.5:
        return "B better" if low < 1 - gamma else "significant but not meaningful"
    return "not significant"


def decide(
    wins: int,
    n: int,
    gamma: float = 0.75,
    alpha: float = 0.05,
    *,
    ties: int = 0,
    correlation: float = 0.0,
    method: Method = "percentile",
) -> Decision:
    """Decide whether A is better than B from the number of paired runs that it won.

    The interval is that of the paper unless `method` says otherwise. Where the interval includes 1/2 the difference
    is not significant; where it excludes 1/2 but not gamma it is significant but not meaningful; B is better where A
    would be with the names exchanged. Source: "Accounting for Variance in Machine Learning Benchmarks" (2021),
    Appendix C.6 (section 4.1 misprints the rule).

    With `method="recommended"` a zero-width interval is widened and both wrong verdicts at P(A>B) = 1/2 together
    have probability alpha at most; the paper's interval exceeds it for some n (.061 at n = 29).

    Args:
        wins: pairs in which A is strictly better.
        n: pairs.
        gamma: the least P(A>B) that is worth a change, between 0.5 and 1.
        alpha: error probability of the two-sided interval.
        ties: pairs in which both are equal, counted as half a win.
        correlation: between runs of one system that share a hyper-parameter search; see `correlation_from_repetitions`.
        method: of the interval; a correlation needs "recommended".

    Raises:
        ArgumentError: a number is out of range, or the method knows no correlation.
    """
    if n < 1:
        raise ArgumentError("n", n, expected="1 or more")
    if not (wins >= 0 and ties >= 0 and wins + ties <= n):
        raise ArgumentError("wins, ties", (wins, ties), expected=f"0 or more each, at most {n} together")
    check_settings(gamma, alpha, correlation, method)
    if undecidable(n - ties, alpha, correlation, method):
        return "cannot decide"
    return judge(*paired_interval(wins, n, alpha, ties=ties, correlation=correlation, method=method), gamma)


def undecidable(untied: int, alpha: float, correlation: float, method: Method) -> bool:
    """Whether so few pairs differ that not even winning all of them is significant.

    The paper's interval and Wilson's accept too few; of them only a single pair is refused.
    """
    if untied < 2 or method in ("percentile", "wilson"):
        return untied < 2
    return 2 * tail_probability(untied, untied, 0.0, correlation) > alpha


def check_settings(gamma: float, alpha: float, correlation: float, method: Method) -> None:
    """Refuse settings that no decision can have.

    Raises:
        ArgumentError: one of them is out of range, or the method knows no correlation.
    """
    check_share("gamma", gamma, 0.5)
    check_share("alpha", alpha)
    check_correlation(correlation)
    methods = ("recommended", "percentile", "wilson", "clopper-pearson")
    if method not in methods:
        raise ArgumentError("method", method, expected=f"one of {', '.join(methods)}")
    if correlation and method != "recommended":
        raise ArgumentError("method", method, expected='"recommended" with a correlation; the others know none')
