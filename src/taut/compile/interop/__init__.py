"""Inter-operator scheduling: which operators run at the same time, found by search over measured or modelled costs."""

from taut.compile.interop._count import Counts, count, transition_bound, width
from taut.compile.interop._graph import Convolution, Operator, OperatorGraph
from taut.compile.interop._oracle import CachedOracle, Oracle, Stages
from taut.compile.interop._partition import partition
from taut.compile.interop._published import ScheduledBlock, ScheduledNetwork, Slice, read_ios_schedule
from taut.compile.interop._randwire import read_ios_graph
from taut.compile.interop._search import greedy, search, sequential
from taut.compile.interop._timeline import (
    MOST_WORKERS,
    Bound,
    Slot,
    Timeline,
    exact_schedule,
    list_schedule,
    lower_bound,
)
from taut.compile.interop._types import STRATEGIES, Schedule, Stage, Strategy
from taut.compile.interop._validate import validate

__all__ = [
    "MOST_WORKERS",
    "STRATEGIES",
    "Bound",
    "CachedOracle",
    "Convolution",
    "Counts",
    "Operator",
    "OperatorGraph",
    "Oracle",
    "Schedule",
    "ScheduledBlock",
    "ScheduledNetwork",
    "Slice",
    "Slot",
    "Stage",
    "Stages",
    "Strategy",
    "Timeline",
    "count",
    "exact_schedule",
    "greedy",
    "list_schedule",
    "lower_bound",
    "partition",
    "read_ios_graph",
    "read_ios_schedule",
    "search",
    "sequential",
    "transition_bound",
    "validate",
    "width",
]
