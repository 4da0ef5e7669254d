"""Gradient exchange between the ranks of a training job: compressors, hooks, controllers, and when not to compress."""

from taut.distributed._advice_page import bandwidth_text, link_text, milliseconds, render_advice
from taut.distributed._advise import BANDWIDTHS, Advice, Prediction, Verdict, advise, predict, ratio, sweep
from taut.distributed._attach import attach
from taut.distributed._candidates import BASELINES, CANDIDATES, KEPT, KEPT_NOTE, kept_text
from taut.distributed._choices import BUCKET_CAPS, Choice, Recommendation, recommend
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
from taut.distributed._layer_profile import LayerProfile, ProfiledLayer, read_layer_profiles
from taut.distributed._local import LocalCommunicator, run_ranks
from taut.distributed._local_ranks import LocalRanks
from taut.distributed._probe import Measured, measure_group, probe_group, probe_host, time_collectives, time_encoder
from taut.distributed._process_group import ProcessGroupCommunicator
from taut.distributed._profile import Profile, read_profile
from taut.distributed._state import average_states
from taut.distributed._step_time import AS_IS, Change, Cluster, EncodeCost, sent_bytes, step_seconds
from taut.distributed._study import SetUp, run_study
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
from taut.distributed._what_if import (
    FACTORS,
    LARGER_MESSAGES,
    WhatIfs,
    explore,
    faster_encoder,
    required_compression,
    sweep_changes,
)
from taut.distributed._wire import Coding, gather_sparse, gather_uneven
from taut.distributed._workload import Bucket, Workload, even_workload, measure_workload

__all__ = [
    "AS_IS",
    "BANDWIDTHS",
    "BASELINES",
    "BUCKET_CAPS",
    "CANDIDATES",
    "FACTORS",
    "KEPT",
    "KEPT_NOTE",
    "LARGER_MESSAGES",
    "Accordion",
    "AccordionBatchSize",
    "AccumulatedMagnitudes",
    "Advice",
    "AlternatingPowerSGD",
    "BFloat16",
    "BatchSize",
    "Bucket",
    "Change",
    "Choice",
    "Cluster",
    "Coding",
    "Collective",
    "Communicator",
    "Compressor",
    "Controller",
    "CostModelController",
    "CountedThreshold",
    "DeepGradientCompression",
    "EncodeCost",
    "Fit",
    "Float16",
    "Gradient",
    "Handle",
    "HardThreshold",
    "LayerProfile",
    "LinkLab",
    "LocalCommunicator",
    "LocalRanks",
    "Magnitudes",
    "Measured",
    "Memory",
    "Message",
    "Moments",
    "NoCompression",
    "PowerSGD",
    "Prediction",
    "ProcessGroupCommunicator",
    "Profile",
    "ProfiledLayer",
    "QuantisedSGD",
    "RandomK",
    "RandomSchedule",
    "Recommendation",
    "Replay",
    "SetUp",
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
    "Verdict",
    "WarmUp",
    "WhatIfs",
    "Workload",
    "advise",
    "attach",
    "average_states",
    "bandwidth_text",
    "even_workload",
    "explore",
    "faster_encoder",
    "gather_sparse",
    "gather_uneven",
    "kept_text",
    "link_text",
    "measure_group",
    "measure_workload",
    "milliseconds",
    "missing_for_lab",
    "predict",
    "probe_group",
    "probe_host",
    "ratio",
    "read_layer_profiles",
    "read_profile",
    "recommend",
    "render_advice",
    "required_compression",
    "run_ranks",
    "run_study",
    "sent_bytes",
    "step_seconds",
    "sweep",
    "sweep_changes",
    "time_collectives",
    "time_encoder",
]
