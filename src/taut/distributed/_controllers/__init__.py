"""Controllers of the level of compression; `taut.distributed` is their face."""

from taut.distributed._controllers._accordion import Accordion
from taut.distributed._controllers._batch_size import AccordionBatchSize, BatchSize
from taut.distributed._controllers._cost_model import CostModelController
from taut.distributed._controllers._fixed import RandomSchedule, Replay, Static, WarmUp

__all__ = [
    "Accordion",
    "AccordionBatchSize",
    "BatchSize",
    "CostModelController",
    "RandomSchedule",
    "Replay",
    "Static",
    "WarmUp",
]
