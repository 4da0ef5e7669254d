"""Deciding which of two systems is better; `taut.stats` is the face of what is here."""

from taut.stats.decisions._correlation import (
    correlation_from_deviations,
    correlation_from_means,
    correlation_from_repetitions,
)
from taut.stats.decisions._drawing import comparison_page, draw_comparison
from taut.stats.decisions._files import Scores, read_scores
from taut.stats.decisions._intervals import Method
from taut.stats.decisions._outperformance import Outperformance, outperformance
from taut.stats.decisions._power import power, runs_needed, sample_size, verdict_probabilities
from taut.stats.decisions._rule import Decision, decide
from taut.stats.decisions._scores import pair_by_seed
from taut.stats.decisions._several import AcrossDatasets, across_datasets, compare_systems
from taut.stats.decisions._significance import significance

__all__ = [
    "AcrossDatasets",
    "Decision",
    "Method",
    "Outperformance",
    "Scores",
    "across_datasets",
    "compare_systems",
    "comparison_page",
    "correlation_from_deviations",
    "correlation_from_means",
    "correlation_from_repetitions",
    "decide",
    "draw_comparison",
    "outperformance",
    "pair_by_seed",
    "power",
    "read_scores",
    "runs_needed",
    "sample_size",
    "significance",
    "verdict_probabilities",
]
