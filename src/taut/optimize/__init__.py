"""The main job: which techniques pay on this model, this data and this host.

The package is callable: `taut.optimize(model, example_inputs)` is `taut.optimize.optimize(...)`.
"""

import sys
import types
from typing import Any

from taut.optimize._bundle import check_destination, free_destination, read_report, verify_bundle
from taut.optimize._data import Dataset, check_inputs, load_data, match_labels, synthesise
from taut.optimize._job import dry_run, optimize
from taut.optimize._load import EMBEDDED_EXAMPLE, LoadedModel, capture_model, load_model
from taut.optimize._metrics import METRICS, Metric, choose_metric
from taut.optimize._planner import PEERS, Trial, technique_names
from taut.optimize._prepare import dynamic_batch
from taut.optimize._quality import Limit, Quality, first_tensor
from taut.optimize._quantize import quantize
from taut.optimize._recipe import Recipe, read_recipe
from taut.optimize._report import Report, render_report
from taut.optimize._session import Session, load
from taut.optimize._work import Result

__all__ = [
    "EMBEDDED_EXAMPLE",
    "METRICS",
    "PEERS",
    "Dataset",
    "Limit",
    "LoadedModel",
    "Metric",
    "Quality",
    "Recipe",
    "Report",
    "Result",
    "Session",
    "Trial",
    "capture_model",
    "check_destination",
    "check_inputs",
    "choose_metric",
    "dry_run",
    "dynamic_batch",
    "first_tensor",
    "free_destination",
    "load",
    "load_data",
    "load_model",
    "match_labels",
    "optimize",
    "quantize",
    "read_recipe",
    "read_report",
    "render_report",
    "synthesise",
    "technique_names",
    "verify_bundle",
]


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **keywords: Any) -> Result:
        return optimize(*args, **keywords)


sys.modules[__name__].__class__ = _CallableModule
