"""Gradient exchange between the ranks of a training job: compressors, hooks, controllers, and when not to compress."""

from taut.distributed._attach import attach
from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._compressors import (
    AlternatingPowerSGD,
    BFloat16,
    DeepGradientCompression,
    Float16,
    HardThreshold,
    NoCompression,
    PowerSGD,
    QuantisedSGD,
    RandomK,
    SignMajority,
    SparseAllReduce,
    Threshold,
    TopK,
)
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
from taut.distributed._exchange import Statistics
from taut.distributed._handle import Handle
from taut.distributed._lab import LinkLab, missing_for_lab
from taut.distributed._local import LocalCommunicator, run_ranks
from taut.distributed._local_ranks import LocalRanks
from taut.distributed._process_group import ProcessGroupCommunicator
from taut.distributed._state import average_states
from taut.distributed._thresholds import (
    AccumulatedMagnitudes,
    CountedThreshold,
    Fit,
    Magnitudes,
    Moments,
    StagedThreshold,
    TensorMagnitudes,
    ThresholdEstimator,
)
from taut.distributed._traffic import Collective, Message, Traffic
from taut.distributed._wire import Coding, gather_sparse, gather_uneven

__all__ = [
    "Accordion",
    "AccordionBatchSize",
    "AccumulatedMagnitudes",
    "AlternatingPowerSGD",
    "BFloat16",
    "BatchSize",
    "Coding",
    "Collective",
    "Communicator",
    "Compressor",
    "Controller",
    "CostModelController",
    "CountedThreshold",
    "DeepGradientCompression",
    "Fit",
    "Float16",
    "Gradient",
    "Handle",
    "HardThreshold",
    "LinkLab",
    "LocalCommunicator",
    "LocalRanks",
    "Magnitudes",
    "Memory",
    "Message",
    "Moments",
    "NoCompression",
    "PowerSGD",
    "ProcessGroupCommunicator",
    "QuantisedSGD",
    "RandomK",
    "RandomSchedule",
    "Replay",
    "SignMajority",
    "SparseAllReduce",
    "StagedThreshold",
    "Static",
    "Statistics",
    "TensorMagnitudes",
    "Threshold",
    "ThresholdEstimator",
    "TopK",
    "Traffic",
    "WarmUp",
    "attach",
    "average_states",
    "gather_sparse",
    "gather_uneven",
    "missing_for_lab",
    "run_ranks",
]
