"""All entries above a fixed magnitude."""

from __future__ import annotations

import math
from dataclasses import dataclass

from taut.distributed._compressor import Gradient, Memory, check_ratio
from taut.distributed._compressors._sparse import Coding, Entries, SparseCompressor, ValueType, check_travel
from taut.distributed._compressors._top_k import kept_of
from taut.distributed._memory import residual_of
from taut.distributed._selection import select_above
from taut.errors import ArgumentError


@dataclass(frozen=True)
class HardThreshold(SparseCompressor):
    """The entries whose magnitude is above a fixed value, with error feedback: few in calm phases, many in others.

    "Rethinking gradient sparsification as total error minimization" (NeurIPS 2021).

    Args:
        value: the threshold, on gradient plus residual.
        values: dtype of the values that travel; what rounding cuts off stays in the residual.
        coding: of the entries that travel; "compact" takes about 18 bits instead of 48 or 64 at 1 %, in bfloat16.
        expected_ratio: share of the entries that `traffic` counts with; the data decide on the real one.
    """

    value: float
    values: ValueType = "float32"
    coding: Coding = "plain"
    expected_ratio: float = 0.01

    def __post_init__(self) -> None:
        if not isinstance(self.value, int | float) or not 0 <= self.value < math.inf:
            raise ArgumentError("value", self.value, expected="a finite magnitude of at least 0")
        check_travel(self.values, self.coding)
        check_ratio("expected_ratio", self.expected_ratio)

    def expected(self, elements: int) -> int:
        """How many of so many entries `traffic` counts with."""
        return kept_of(self.expected_ratio, elements)

    def choose(self, gradient: Gradient, memory: Memory) -> Entries:
        """Take what is above the threshold."""
        residual = residual_of(gradient, memory)
        residual += gradient.tensor.view(-1)
        return Entries(*select_above(residual, self.value))
