"""Compressors, one concept a file."""

from taut.distributed._compressors._alternating import AlternatingPowerSGD
from taut.distributed._compressors._casting import BFloat16, Float16, NoCompression
from taut.distributed._compressors._deep_gradient import DeepGradientCompression
from taut.distributed._compressors._hard_threshold import HardThreshold
from taut.distributed._compressors._power_sgd import PowerSGD
from taut.distributed._compressors._quantised import QuantisedSGD
from taut.distributed._compressors._random_k import RandomK
from taut.distributed._compressors._sign import SignMajority
from taut.distributed._compressors._sparse_all_reduce import SparseAllReduce
from taut.distributed._compressors._threshold import Threshold
from taut.distributed._compressors._top_k import TopK

__all__ = [
    "AlternatingPowerSGD",
    "BFloat16",
    "DeepGradientCompression",
    "Float16",
    "HardThreshold",
    "NoCompression",
    "PowerSGD",
    "QuantisedSGD",
    "RandomK",
    "SignMajority",
    "SparseAllReduce",
    "Threshold",
    "TopK",
]
