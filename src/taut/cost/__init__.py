"""What a graph costs on this host: modelled, measured, and remembered."""

from taut.cost._calibrate import calibrate, thread_count
from taut.cost._measured import Measured
from taut.cost._model import Bound, CostModel, Prediction
from taut.cost._peaks import Peaks, Rate
from taut.cost._roofline import Roofline
from taut.cost._store import Record, Store

__all__ = [
    "Bound",
    "CostModel",
    "Measured",
    "Peaks",
    "Prediction",
    "Rate",
    "Record",
    "Roofline",
    "Store",
    "calibrate",
    "thread_count",
]
