"""Models of hardware: the links between hosts."""

from taut.hardware._links import (
    FORMS,
    CollectiveForm,
    CollectiveTiming,
    LinkModel,
    fit_links,
    measured_bandwidth,
    ring_all_reduce,
)

__all__ = [
    "FORMS",
    "CollectiveForm",
    "CollectiveTiming",
    "LinkModel",
    "fit_links",
    "measured_bandwidth",
    "ring_all_reduce",
]
