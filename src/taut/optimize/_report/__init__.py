"""The report of one job: its schema (`report.json`) and its page (`report.html`)."""

from ._render import LARGEST_PAGE_BYTES, render_report
from ._schema import (
    FORMAT_VERSION,
    Baseline,
    Candidate,
    CandidateStatus,
    Comparison,
    DataSummary,
    Interval,
    Layer,
    Metric,
    ModelSummary,
    OperatorTime,
    Quality,
    Recipe,
    RecipeStep,
    Report,
    SizeBytes,
    Verdict,
)

__all__ = [
    "FORMAT_VERSION",
    "LARGEST_PAGE_BYTES",
    "Baseline",
    "Candidate",
    "CandidateStatus",
    "Comparison",
    "DataSummary",
    "Interval",
    "Layer",
    "Metric",
    "ModelSummary",
    "OperatorTime",
    "Quality",
    "Recipe",
    "RecipeStep",
    "Report",
    "SizeBytes",
    "Verdict",
    "render_report",
]
