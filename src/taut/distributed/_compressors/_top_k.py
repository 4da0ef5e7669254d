"""The largest entries."""

from __future__ import annotations

from dataclasses import dataclass

from taut.distributed._compressor import Gradient, Memory, check_ratio
from taut.distributed._compressors._sparse import Coding, Entries, SparseCompressor, ValueType, check_travel
from taut.distributed._memory import residual_of
from taut.distributed._selection import select_largest


@dataclass(frozen=True)
class TopK(SparseCompressor):
    """The entries of largest magnitude of each parameter, exactly so many, with error feedback.

    Args:
        ratio: share of the entries that is sent, rounded; one at least.
        values: dtype of the values that travel; what rounding cuts off stays in the residual.
        coding: of the entries that travel; "compact" takes about 18 bits instead of 48 or 64 at 1 %, in bfloat16.
    """

    ratio: float
    values: ValueType = "float32"
    coding: Coding = "plain"

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)
        check_travel(self.values, self.coding)

    def expected(self, elements: int) -> int:
        """How many of so many entries are sent."""
        return kept_of(self.ratio, elements)

    def choose(self, gradient: Gradient, memory: Memory) -> Entries:
        """Take the largest entries of gradient plus residual."""
        flat = gradient.tensor.view(-1)
        return Entries(*select_largest(flat, residual_of(gradient, memory), self.expected(flat.numel())))


def kept_of(ratio: float, elements: int) -> int:
    """A share of so many entries, rounded; one at least, if there is one."""
    return min(elements, max(1, round(ratio * elements)))
