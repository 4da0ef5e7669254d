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

KEPT: Mapping[str, float] = {
    "fp32": 1.0,
    "fp16": 1.0,
    "bf16": 1.0,
    "top-k 10 %": 0.74,
    "top-k 1 %": 0.26,
    "top-k 1 % compact": 0.26,
    "top-k 0.1 %": 0.07,
    "threshold 1 %": 0.27,
    "DGC 0.1 %": 0.07,
    "random-k 1 %": 0.01,
    "sparse all-reduce 1 %": 0.26,
    "sign": 0.33,
    "QSGD 8 bits": 1.0,
    "QSGD 4 bits": 0.98,
    "PowerSGD rank 4": 0.79,
    "PowerSGD rank 16": 0.99,
    "ACP-SGD rank 4": 0.07,
}
"""The share of gradients' squared norm that the first exchange of each keeps, with nothing in memory yet.

Measured on two ranks with equal gradients of a perceptron of 1.1 M parameters on digits, the mean over its first epoch:
`energies_kept` of `benchmarks/_shaped_training.py`. Other gradients differ; later exchanges send what residuals hold.
"""

KEPT_NOTE = "keeps: of a gradient's squared norm in a first exchange, measured on a small perceptron; yours may differ"
"""What stands beside the figures of `KEPT`."""

LEAST_KEPT = 0.5
"""What keeps less is not advised without a caution."""


def caution(name: str) -> str:
    """What has to be said of a compressor that keeps little of a gradient; nothing of others."""
    if KEPT[name] >= LEAST_KEPT:
        return ""
    return f"keeps {kept_text(name)} of a gradient in its first exchange, and may need many more steps"


def kept_text(name: str) -> str:
    """The share that a compressor keeps."""
    return f"{100 * KEPT[name]:.0f} %"
