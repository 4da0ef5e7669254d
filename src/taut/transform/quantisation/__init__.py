"""Quantisation of graphs: passes, preparation from data, what each layer loses, and which layer gets which format."""

from taut.transform.quantisation._assignment import Assignment, assign
from taut.transform.quantisation._calibrate import calibratable_layers, calibrate
from taut.transform.quantisation._fine_tune import FineTuned, fine_tune
from taut.transform.quantisation._kernels import kernel_kinds
from taut.transform.quantisation._sensitivity import SensitivityEntry, SensitivityTable, measure_sensitivity

__all__ = [
    "Assignment",
    "FineTuned",
    "SensitivityEntry",
    "SensitivityTable",
    "assign",
    "calibratable_layers",
    "calibrate",
    "fine_tune",
    "kernel_kinds",
    "measure_sensitivity",
]
