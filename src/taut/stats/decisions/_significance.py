"""The usual tests, for those who are asked for them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from taut.errors import ArgumentError, DataError, MeasurementError
from taut.stats.decisions._scores import as_scores

SignificanceTest = Literal["sign", "wilcoxon", "paired-t", "mann-whitney", "brunner-munzel", "t"]
_PAIRED = ("sign", "wilcoxon", "paired-t")


def significance(test: SignificanceTest, a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of the hypothesis that A and B do not differ, through scipy.

    Args:
        test: for paired runs "sign" (ties left out), "wilcoxon" or "paired-t"; for unpaired ones "mann-whitney",
            "brunner-munzel" or "t" (Welch's, without equal variances).
        a: shape (n,), scores of A.
        b: shape (m,), scores of B; n of them in the same order if the test is for paired runs.

    Raises:
        ArgumentError: the test is unknown.
        DataError: scores are not finite, or paired lengths differ.
        MeasurementError: the test is not defined on these scores, e.g. because they are constant.
    """
    if test not in get_args(SignificanceTest):
        raise ArgumentError("test", test, expected=f"one of {', '.join(get_args(SignificanceTest))}")
    scores_a, scores_b = as_scores("A", a), as_scores("B", b)
    if test in _PAIRED and len(scores_a) != len(scores_b):
        raise DataError(f"A has {len(scores_a)} runs and B {len(scores_b)}", expected=f"pairs for the {test} test")
    import scipy.stats

    stats: Any = scipy.stats  # its results are tuples whose names the type checker does not know

    def sign() -> float:
        wins, losses = int(np.sum(scores_a > scores_b)), int(np.sum(scores_a < scores_b))
        return stats.binomtest(wins, wins + losses).pvalue if wins + losses else math.nan

    tests: dict[str, Callable[[], float]] = {
        "sign": sign,
        "wilcoxon": lambda: stats.wilcoxon(scores_a, scores_b).pvalue,
        "paired-t": lambda: stats.ttest_rel(scores_a, scores_b).pvalue,
        "mann-whitney": lambda: stats.mannwhitneyu(scores_a, scores_b).pvalue,
        "brunner-munzel": lambda: stats.brunnermunzel(scores_a, scores_b).pvalue,
        "t": lambda: stats.ttest_ind(scores_a, scores_b, equal_var=False).pvalue,
    }
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # What scipy warns of ends as not-a-number, which is an error here.
        warnings.simplefilter("ignore")
        p_value = float(tests[test]())
    if math.isnan(p_value):
        raise MeasurementError(
            f"the {test} test is not defined on these {len(scores_a)} and {len(scores_b)} scores",
            expected="two or more runs of each system that vary",
        )
    return p_value
