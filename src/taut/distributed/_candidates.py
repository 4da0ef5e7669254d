"""The compressors that advice compares."""

from __future__ import annotations

from collections.abc import Mapping

from taut.distributed._compressor import Compressor
from taut.distributed._compressors import (
    AlternatingPowerSGD,
    BFloat16,
    DeepGradientCompression,
    Float16,
    NoCompression,
    PowerSGD,
    QuantisedSGD,
    RandomK,
    SignMajority,
    SparseAllReduce,
    Threshold,
    TopK,
)

BASELINES = ("fp32", "fp16")
"""What everybody has: plain DistributedDataParallel and its half-precision hook."""

CANDIDATES: Mapping[str, Compressor] = {
    "fp32": NoCompression(),
    "fp16": Float16(),
    "bf16": BFloat16(),
    "top-k 10 %": TopK(0.1),
    "top-k 1 %": TopK(0.01),
    "top-k 1 % compact": TopK(0.01, "bfloat16", "compact"),
    "top-k 0.1 %": TopK(0.001),
    "threshold 1 %": Threshold(0.01),
    "DGC 0.1 %": DeepGradientCompression(0.001),
    "random-k 1 %": RandomK(0.01),
    "sparse all-reduce 1 %": SparseAllReduce(0.01),
    "sign": SignMajority(),
    "QSGD 8 bits": QuantisedSGD(8),
    "QSGD 4 bits": QuantisedSGD(4),
    "PowerSGD rank 4": PowerSGD(4),
    "PowerSGD rank 16": PowerSGD(16),
    "ACP-SGD rank 4": AlternatingPowerSGD(4),
}
"""By name, the baselines first."""
