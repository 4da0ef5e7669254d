"""Gradient exchange between the ranks of a training job: compressors, hooks, controllers, and when not to compress."""

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._controller import Controller
from taut.distributed._controllers import (
    Accordion,
    AccordionBatchSize,
    BatchSize,
    CostModelController,
    RandomSchedule,
    Replay,
    Static,
    WarmUp,
)
from taut.distributed._thresholds import (
    CountedThreshold,
    Fit,
    Magnitudes,
    Moments,
    StagedThreshold,
    TensorMagnitudes,
    ThresholdEstimator,
)
from taut.distributed._traffic import Collective, Message, Traffic

__all__ = [
    "Accordion",
    "AccordionBatchSize",
    "BatchSize",
    "Collective",
    "Communicator",
    "Compressor",
    "Controller",
    "CostModelController",
    "CountedThreshold",
    "Fit",
    "Gradient",
    "Magnitudes",
    "Memory",
    "Message",
    "Moments",
    "RandomSchedule",
    "Replay",
    "StagedThreshold",
    "Static",
    "TensorMagnitudes",
    "ThresholdEstimator",
    "Traffic",
    "WarmUp",
]
