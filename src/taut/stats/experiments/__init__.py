"""Experiments, estimators and studies; `taut.stats` is their face."""

from taut.stats.experiments._costs import StudyCost, plan_cost, time_fit
from taut.stats.experiments._executors import InProcess, Processes, RayWorkers
from taut.stats.experiments._experiment import Experiment, Run, SearchableExperiment
from taut.stats.experiments._load import load_experiment
from taut.stats.experiments._page import render_study
from taut.stats.experiments._parts import FixedHyperparameterEstimator, IdealEstimator, VarianceBySource
from taut.stats.experiments._report import EstimatorSummary, SourceVariance, StudyReport, score_rows, summarise
from taut.stats.experiments._search import NoisyGrid, OptunaSearch, RandomSearch, Range, Search
from taut.stats.experiments._splits import Split, out_of_bootstrap
from taut.stats.experiments._store import StudyStore
from taut.stats.experiments._streams import SOURCES, Streams
from taut.stats.experiments._study import Study, load_study
from taut.stats.experiments._variance import (
    CorrelatedScores,
    bootstrap_deviation,
    correlated_scores,
    deviation_ratio,
    standard_deviation,
)

__all__ = [
    "SOURCES",
    "CorrelatedScores",
    "EstimatorSummary",
    "Experiment",
    "FixedHyperparameterEstimator",
    "IdealEstimator",
    "InProcess",
    "NoisyGrid",
    "OptunaSearch",
    "Processes",
    "RandomSearch",
    "Range",
    "RayWorkers",
    "Run",
    "Search",
    "SearchableExperiment",
    "SourceVariance",
    "Split",
    "Streams",
    "Study",
    "StudyCost",
    "StudyReport",
    "StudyStore",
    "VarianceBySource",
    "bootstrap_deviation",
    "correlated_scores",
    "deviation_ratio",
    "load_experiment",
    "load_study",
    "out_of_bootstrap",
    "plan_cost",
    "render_study",
    "score_rows",
    "standard_deviation",
    "summarise",
    "time_fit",
]
