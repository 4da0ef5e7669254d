"""Rewrites that make a graph cheaper, and the record of what each changed."""

from taut.transform._catalogue import PASSES, apply_recipe, check_order, get_pass
from taut.transform._needs import missing_needs
from taut.transform._protocol import Applicability, Change, Pass, Replacement
from taut.transform.quantisation import (
    Assignment,
    FineTuned,
    SensitivityEntry,
    SensitivityTable,
    assign,
    calibratable_layers,
    calibrate,
    fine_tune,
    kernel_kinds,
    measure_sensitivity,
)

__all__ = [
    "PASSES",
    "Applicability",
    "Assignment",
    "Change",
    "FineTuned",
    "Pass",
    "Replacement",
    "SensitivityEntry",
    "SensitivityTable",
    "apply_recipe",
    "assign",
    "calibratable_layers",
    "calibrate",
    "check_order",
    "fine_tune",
    "get_pass",
    "kernel_kinds",
    "measure_sensitivity",
    "missing_needs",
]
