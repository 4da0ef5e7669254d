"""Entries that chance chooses, the same on all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory, check_ratio, check_whole
from taut.distributed._compressors._top_k import kept_of
from taut.distributed._memory import forget_not_finite, generator, is_zero, next_step, residual_of
from taut.distributed._traffic import Message, Traffic


@dataclass(frozen=True)
class RandomK(Compressor):
    """Random entries of each parameter, as many in each step, with error feedback; no index travels.

    What was sent plus the new residual is the old residual plus the gradient, to the bit. A NaN or infinity makes all
    that is sent of the parameter NaN in this step, and is not kept.

    Args:
        ratio: share of the entries that is sent, rounded; one at least.
        seed: with the name of the parameter and the step it gives the entries; the same on all ranks.
    """

    reducible: ClassVar[bool] = True
    overlappable: ClassVar[bool] = True
    shardable: ClassVar[bool] = True

    ratio: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)
        check_whole("seed", self.seed, 0)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks of what the ranks sent."""
        chosen = [self._choose(gradient, memory) for gradient in gradients]
        sent = torch.cat([self._take(g, i, memory) for g, i in zip(gradients, chosen, strict=True)])
        communicator.all_reduce(sent)
        pieces = sent.div_(communicator.size).split([indices.numel() for indices in chosen])
        for gradient, indices, mean in zip(gradients, chosen, pieces, strict=True):
            gradient.tensor.zero_().view(-1)[indices] = mean.to(gradient.tensor.dtype)

    def scatter(self, gradient: Gradient, communicator: Communicator, memory: Memory) -> torch.Tensor:
        """This rank's shard; all ranks get the values of all shards, which are summed on their way."""
        self.exchange([gradient], communicator, memory)
        return gradient.tensor.chunk(communicator.size)[communicator.rank]

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """One all-reduce of the chosen values."""
        return Traffic((Message("all_reduce", 4 * sum(kept_of(self.ratio, shape.numel()) for shape in shapes)),))

    def _choose(self, gradient: Gradient, memory: Memory) -> torch.Tensor:
        elements = gradient.tensor.numel()
        random = generator(torch.device("cpu"), self.seed, gradient.name, next_step(gradient.name, memory))
        indices = distinct(elements, kept_of(self.ratio, elements), random)
        return indices.to(gradient.tensor.device)

    def _take(self, gradient: Gradient, indices: torch.Tensor, memory: Memory) -> torch.Tensor:
        flat = gradient.tensor.view(-1)
        if is_zero(flat):
            return torch.zeros(indices.numel(), device=flat.device)
        residual = residual_of(gradient, memory)
        residual += flat
        broken = not bool(residual.sum().isfinite()) and not bool(residual.isfinite().all())
        values = residual[indices].float()
        rest = residual[indices] - values
        residual[indices] = rest.where(values.isfinite(), 0)
        if broken:
            values.fill_(torch.nan)  # chance may have left it out
            forget_not_finite(gradient, memory)
        return values


def distinct(elements: int, kept: int, random: torch.Generator) -> torch.Tensor:
    """So many different numbers below `elements`, (kept,) int64, each set as likely as any other."""
    if 4 * kept > elements:
        return torch.randperm(elements, generator=random)[:kept]
    found = torch.empty(0, dtype=torch.int64)
    while found.numel() < kept:
        # Draws too many, then drops some by chance, for the smaller ones must not be likelier.
        missing = kept - found.numel()
        drawn = torch.randint(elements, (missing + missing // 4 + 8,), generator=random)
        found = torch.cat([found, drawn]).unique()
    return found[torch.randperm(found.numel(), generator=random)[:kept]]
