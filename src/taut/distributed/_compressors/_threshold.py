"""The entries above an estimated threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from taut.distributed._compressor import Gradient, Memory, check_ratio
from taut.distributed._compressors._sparse import Coding, Entries, SparseCompressor, ValueType, check_travel
from taut.distributed._compressors._top_k import kept_of
from taut.distributed._memory import residual_of
from taut.distributed._selection import has_kernels, select_above
from taut.distributed._thresholds import (
    AccumulatedMagnitudes,
    CountedThreshold,
    Magnitudes,
    TensorMagnitudes,
    ThresholdEstimator,
)
from taut.errors import ArgumentError


@dataclass(frozen=True)
class Threshold(SparseCompressor):
    """About a share of the entries of each parameter, those above an estimated threshold, with error feedback.

    "SIDCo" (MLSys 2021). How many are sent depends on the data; ranks need not agree. The state of the estimator is
    kept for each parameter.

    Args:
        ratio: share of the entries that is wanted.
        estimator: of the threshold that so many exceed.
        values: dtype of the values that travel; what rounding cuts off stays in the residual.
        coding: of the entries that travel; "compact" takes about 18 bits instead of 48 or 64 at 1 %, in bfloat16.
    """

    ratio: float
    estimator: ThresholdEstimator = field(default_factory=CountedThreshold)
    values: ValueType = "float32"
    coding: Coding = "plain"

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)
        check_travel(self.values, self.coding)
        if isinstance(self.estimator, type) or not hasattr(self.estimator, "logarithms"):
            raise ArgumentError(
                "estimator", self.estimator, expected="an estimator of thresholds, e.g. CountedThreshold()"
            )

    def expected(self, elements: int) -> int:
        """How many of so many entries are wanted."""
        return kept_of(self.ratio, elements)

    def choose(self, gradient: Gradient, memory: Memory) -> Entries:
        """Take what is above the threshold."""
        residual = residual_of(gradient, memory)
        magnitudes = self._accumulate(gradient.tensor.view(-1), residual)
        wanted, state = self.expected(residual.numel()), memory[gradient.name]
        entries = Entries(*select_above(residual, self.estimator.find(magnitudes, wanted, state)))
        self.estimator.record(wanted, entries.indices.numel(), state)
        return entries

    def _accumulate(self, flat: torch.Tensor, residual: torch.Tensor) -> Magnitudes:
        if has_kernels(residual):
            return AccumulatedMagnitudes(flat.to(residual.dtype), residual, logarithms=self.estimator.logarithms)
        residual += flat
        return TensorMagnitudes(residual)
