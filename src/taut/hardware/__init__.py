"""Models of hardware: the links between hosts."""

from taut.hardware._fit import DRAWS, Fit, fit_times
from taut.hardware._links import (
    FORMS,
    GOODPUT,
    CollectiveForm,
    CollectiveTiming,
    LinkModel,
    fit_links,
    measured_bandwidth,
    ring_all_reduce,
)

__all__ = [
    "DRAWS",
    "FORMS",
    "GOODPUT",
    "CollectiveForm",
    "CollectiveTiming",
    "Fit",
    "LinkModel",
    "fit_links",
    "fit_times",
    "measured_bandwidth",
    "ring_all_reduce",
]
