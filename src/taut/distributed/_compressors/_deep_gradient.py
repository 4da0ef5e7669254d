"""Momentum that is aware of what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Gradient, Memory, check_ratio, check_whole
from taut.distributed._compressors._sparse import Coding, Entries, SparseCompressor, ValueType, check_travel
from taut.distributed._compressors._top_k import kept_of
from taut.distributed._memory import VELOCITY, next_step, residual_of
from taut.distributed._selection import select_largest
from taut.errors import ArgumentError


@dataclass(frozen=True)
class DeepGradientCompression(SparseCompressor):
    """Top-k of a locally accumulated velocity, with momentum correction, factor masking and warm-up.

    "Deep Gradient Compression" (ICLR 2018), sections 3.1 to 3.3. On each rank the velocity becomes `momentum *
    velocity + gradient`, the residual grows by the velocity, the largest entries of the residual are sent, and
    velocity and residual are cleared where they were. The optimiser must then have no momentum of its own: what it is
    given is a sum of velocities, not of gradients. What was sent plus the residual is the sum of the velocities.

    Args:
        ratio: share of the entries that is sent after the warm-up, rounded; one at least.
        momentum: of the velocity; 0 makes it plain top-k.
        warm_up: steps over which the share falls from 1 to `ratio`, exponentially; 0 for none.
        values: dtype of the values that travel; what rounding cuts off stays in the residual.
        coding: of the entries that travel; "compact" takes about 18 bits instead of 48 or 64 at 1 %, in bfloat16.
    """

    ratio: float
    momentum: float = 0.9
    warm_up: int = 0
    values: ValueType = "float32"
    coding: Coding = "plain"

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)
        if isinstance(self.momentum, bool) or not 0 <= self.momentum < 1:
            raise ArgumentError("momentum", self.momentum, expected="at least 0 and below 1")
        check_whole("warm_up", self.warm_up, 0)
        check_travel(self.values, self.coding)

    def at_step(self, step: int) -> DeepGradientCompression:
        """The same without warm-up, at the share of the entries that a step sends."""
        progress = 1.0 if step >= self.warm_up else (step + 1) / (self.warm_up + 1)
        return replace(self, ratio=self.ratio**progress, warm_up=0)

    def expected(self, elements: int) -> int:
        """How many of so many entries are sent after the warm-up."""
        return kept_of(self.ratio, elements)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks of what the ranks sent."""
        if not self.warm_up:
            super().exchange(gradients, communicator, memory)
            return
        steps = {gradient.name: next_step(gradient.name, memory) for gradient in gradients}
        for step in sorted(set(steps.values())):
            of_step = [gradient for gradient in gradients if steps[gradient.name] == step]
            self.at_step(step).exchange(of_step, communicator, memory)

    def scatter(self, gradient: Gradient, communicator: Communicator, memory: Memory) -> torch.Tensor:
        """This rank's shard of the mean over ranks of what the ranks sent."""
        if not self.warm_up:
            return super().scatter(gradient, communicator, memory)
        return self.at_step(next_step(gradient.name, memory)).scatter(gradient, communicator, memory)

    def choose(self, gradient: Gradient, memory: Memory) -> Entries:
        """Take the largest entries of what the velocities have added up to."""
        flat = gradient.tensor.view(-1)
        velocity = residual_of(gradient, memory, VELOCITY)
        velocity.mul_(self.momentum).add_(flat)
        entries = Entries(*select_largest(velocity, residual_of(gradient, memory), self.expected(flat.numel())))
        velocity[entries.indices] = 0
        return entries
