"""Power, sample sizes, and how many runs are missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

from taut.errors import ArgumentError
from taut.stats.decisions._all_pairs import normal_variance
from taut.stats.decisions._correlated import tail_probability
from taut.stats.decisions._intervals import Method
from taut.stats.decisions._rule import Decision, check_settings, decide
from taut.stats.decisions._scores import check_correlation, check_share

SizedTest = Literal["sign", "mann-whitney", "t"]

# Nobody repeats a training run more often.
_MOST_RUNS = 100_000
# Above this size exact powers fall so little from one n to the next that the first sufficient n is the answer.
_SAWTOOTH = 400


def power(test: SizedTest, n: int, probability: float = 0.75, alpha: float = 0.05) -> float:
    """Probability that a one-sided test at level alpha finds A better.

    Args:
        test: "sign" of n pairs (exact), "t" of n runs per system (exact for normal scores of equal variance), or
            "mann-whitney" of n runs per system (normal approximation with the variance of normal scores).
        n: pairs, or runs of each system.
        probability: the true P(A>B).
        alpha: error probability, one-sided.

    Raises:
        ArgumentError: a number is out of range, or the test is unknown.
    """
    _check_test(test)
    check_share("probability", probability)
    check_share("alpha", alpha)
    if n < 2:
        raise ArgumentError("n", n, expected="2 or more")
    from scipy.special import ndtr, ndtri

    theta = float(ndtri(probability))
    if test == "sign":
        return tail_probability(_critical_wins(n, alpha, 0.0), n, theta, 0.0)
    if test == "t":
        from scipy.stats import nct, t

        return float(nct.sf(t.ppf(1 - alpha, 2 * n - 2), 2 * n - 2, theta * math.sqrt(n)))
    null_deviation = math.sqrt((2 * n + 1) / 12) / n
    deviation = math.sqrt(normal_variance(n, n, theta))
    return float(ndtr((probability - 0.5 + ndtri(alpha) * null_deviation) / deviation))


def sample_size(test: SizedTest, gamma: float = 0.75, alpha: float = 0.05, beta: float = 0.05) -> int:
    """Runs with which a one-sided test finds P(A>B) = gamma with probability 1 - beta.

    "sign" is for paired runs: the number of pairs from which the exact power stays (44 by default). "mann-whitney" is
    for all pairs of unpaired runs, per system, by the formula of the paper (29), which is Noether's (1987). "t" is
    for normal scores of equal variance, per system: the least size with the exact power (25). The paper states its 29
    for paired runs; for these it is too small.

    Args:
        test: "sign", "mann-whitney" or "t".
        gamma: the P(A>B) that shall be found, between 0.5 and 1.
        alpha: error probability, one-sided.
        beta: probability to miss it.

    Raises:
        ArgumentError: a number is out of range, or the test is unknown.
    """
    _check_test(test)
    for name, value, low in (("gamma", gamma, 0.5), ("alpha", alpha, 0.0), ("beta", beta, 0.0)):
        check_share(name, value, low)
    from scipy.special import ndtri

    z = float(-ndtri(alpha) - ndtri(beta))
    if test == "mann-whitney":
        return max(2, math.ceil((z / (math.sqrt(6) * (gamma - 0.5))) ** 2))
    size = _first_lasting(lambda n: power(test, n, gamma, alpha) >= 1 - beta, 2)
    if size is None:
        raise ArgumentError("gamma", gamma, expected=f"a difference that {_MOST_RUNS:,} runs can find")
    return size


def runs_needed(
    probability: float,
    *,
    paired: bool,
    alpha: float = 0.05,
    beta: float = 0.05,
    correlation: float = 0.0,
    ties: float = 0.0,
) -> int | None:
    """Runs of each system from which `outperformance` finds a true P(A>B) significant with probability 1 - beta.

    Exact for paired runs; for unpaired ones a normal approximation for normal scores of equal variance.

    Args:
        probability: the true P(A>B); not 0.5.
        paired: whether runs are compared seed by seed.
        alpha: error probability of the two-sided interval.
        beta: probability to miss the difference.
        correlation: between runs that share a search.
        ties: share of pairs that will tie, of which half are in `probability`; paired runs only, since ties decide
            nothing there.

    Returns:
        The number, or None where no affordable number suffices: with a correlation only more searches help.

    Raises:
        ArgumentError: a number is out of range.
    """
    for name, value in (("probability", probability), ("alpha", alpha), ("beta", beta)):
        check_share(name, value)
    if probability == 0.5:
        raise ArgumentError("probability", probability, expected="a difference: not 0.5")
    check_correlation(correlation)
    if not 0 <= ties < 1:
        raise ArgumentError("ties", ties, expected="a share: 0 or more, and less than 1")
    if paired and ties:
        # Among untied pairs A wins more often; a difference that large cannot be with that many ties, so at most 1.
        clearer = min(0.5 + abs(probability - 0.5) / (1 - ties), 1 - 1e-6)
        untied = runs_needed(clearer, paired=True, alpha=alpha, beta=beta, correlation=correlation)
        return None if untied is None else math.ceil(untied / (1 - ties))
    from scipy.special import ndtr, ndtri

    theta = abs(float(ndtri(probability)))
    z = float(-ndtri(alpha / 2))
    if correlation and ndtr(theta / math.sqrt(correlation) - z) <= 1 - beta:
        return None

    def paired_power(n: int) -> float:
        return tail_probability(_critical_wins(n, alpha / 2, correlation), n, theta, correlation)

    def unpaired_power(n: int) -> float:
        # On the scale of Phi^-1 of the within-search probability, where half of the interval is that of equal systems.
        inner = theta / math.sqrt(1 - correlation)
        density = math.exp(-(inner**2) / 2) / math.sqrt(2 * math.pi)
        variance = (1 - correlation) * normal_variance(n, n, inner) / density**2
        equal = (1 - correlation) * normal_variance(n, n, 0.0) * 2 * math.pi
        half = z * math.sqrt(equal + correlation)
        return float(ndtr((theta - half) / math.sqrt(variance + correlation)))

    found = paired_power if paired else unpaired_power
    return _first_lasting(lambda n: found(n) >= 1 - beta, 2)


def verdict_probabilities(
    n: int,
    probability: float,
    gamma: float = 0.75,
    alpha: float = 0.05,
    *,
    correlation: float = 0.0,
    method: Method = "recommended",
    true_correlation: float | None = None,
) -> dict[Decision, float]:
    """Exact probability of each verdict from n pairs without ties.

    Args:
        n: pairs.
        probability: the true P(A>B), searches included.
        gamma: as for `decide`.
        alpha: as for `decide`.
        correlation: that the decision assumes.
        method: of the decision.
        true_correlation: of the runs; by default what the decision assumes.

    Raises:
        ArgumentError: a number is out of range.
    """
    check_share("probability", probability)
    if n < 1:
        raise ArgumentError("n", n, expected="1 or more")
    check_settings(gamma, alpha, correlation, method)
    rho = correlation if true_correlation is None else true_correlation
    check_correlation(rho)
    from scipy.special import ndtri

    theta = float(ndtri(probability))
    tails = [tail_probability(wins, n, theta, rho) for wins in range(n + 2)]
    chances: dict[Decision, float] = dict.fromkeys(get_args(Decision), 0.0)
    for wins in range(n + 1):
        verdict = decide(wins, n, gamma, alpha, correlation=correlation, method=method)
        chances[verdict] += tails[wins] - tails[wins + 1]
    return chances


def _critical_wins(n: int, tail: float, correlation: float) -> int:
    """Fewest wins with probability `tail` at most where P(A>B) = 1/2; n + 1 if there are none."""
    low, high = 0, n + 1  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        if tail_probability(middle, n, 0.0, correlation) <= tail:
            high = middle
        else:
            low = middle
    return high


def _first_lasting(sufficient: Callable[[int], bool], least: int) -> int | None:
    """The n from which `sufficient` stays true: exact powers rise in a sawtooth."""
    high = least
    while not all(sufficient(n) for n in (range(high, high + 12) if high <= _SAWTOOTH else (high,))):
        high = high * 5 // 4 + 1
        if high > _MOST_RUNS:
            return None
    if high > _SAWTOOTH:
        low = high * 3 // 4
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if sufficient(middle) else (middle, high)
        return high
    while high > least and sufficient(high - 1):
        high -= 1
    return high


def _check_test(test: str) -> None:
    if test not in get_args(SizedTest):
        raise ArgumentError("test", test, expected=f"one of {', '.join(get_args(SizedTest))}")
