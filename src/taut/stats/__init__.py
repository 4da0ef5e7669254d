"""Measuring, and what a measurement may claim."""

from taut.stats._arms import Arm
from taut.stats._bootstrap import paired_bootstrap
from taut.stats._clock import Clock
from taut.stats._compare import compare
from taut.stats._fingerprint import HostFingerprint, available_cores, fingerprint
from taut.stats._isolated import IsolatedArm
from taut.stats._measure import Sample, measure
from taut.stats._quantile import Interval, quantile_interval
from taut.stats._quietness import Quietness, quietness
from taut.stats._result import PairedResult

__all__ = [
    "Arm",
    "Clock",
    "HostFingerprint",
    "Interval",
    "IsolatedArm",
    "PairedResult",
    "Quietness",
    "Sample",
    "available_cores",
    "compare",
    "fingerprint",
    "measure",
    "paired_bootstrap",
    "quantile_interval",
    "quietness",
]
