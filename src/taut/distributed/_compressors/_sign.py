"""One bit for each entry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._memory import is_zero, residual_of
from taut.distributed._selection import accumulate_mean, floats_of, majority, pack_signs
from taut.distributed._traffic import Message, Traffic


@dataclass(frozen=True)
class SignMajority(Compressor):
    """The sign of each entry, by the majority of the ranks, times the mean magnitude of the parameter.

    "signSGD with majority vote" (ICLR 2019) with the error feedback of "Error feedback fixes signSGD" (ICML 2019):
    each rank sends the signs of gradient plus residual and their mean magnitude, and keeps the difference between the
    two. What a rank sent plus its new residual is its old residual plus its gradient, within one rounding for each
    entry; the vote itself is not corrected for. Where as many ranks say plus as minus the result is 0. A rank whose
    gradient is zero everywhere has no vote. A NaN or infinity makes the whole parameter NaN in this step, and is not
    kept.
    """

    reducible: ClassVar[bool] = False
    overlappable: ClassVar[bool] = True

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the vote of the ranks times the mean over ranks of their mean magnitudes."""
        packed, scales = [], []
        for gradient in gradients:
            bits, scale = self._encode(gradient, memory)
            packed.append(bits)
            scales.append(scale)
        rows = communicator.all_gather(torch.cat([torch.stack(scales).view(torch.uint8), *packed]))
        start = 4 * len(scales)
        weights = floats_of(rows[:, :start])  # (ranks, parameters); 0 has no vote
        for place, (gradient, bits) in enumerate(zip(gradients, packed, strict=True)):
            flat = gradient.tensor.view(-1)
            votes = rows[weights[:, place] != 0, start : start + bits.numel()]
            mean = weights[:, place].mean().item()
            if len(votes) and math.isfinite(mean):
                flat.copy_(majority(votes, flat.numel(), mean))
            else:
                flat.fill_(mean)
            start += bits.numel()

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """A bit for each entry, each parameter in whole bytes, and a float32 for each parameter."""
        size = sum((shape.numel() + 7) // 8 for shape in shapes)
        return Traffic((Message("all_gather", size + 4 * len(shapes)),))

    def _encode(self, gradient: Gradient, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        flat = gradient.tensor.view(-1)
        if is_zero(flat):
            return flat.new_zeros((flat.numel() + 7) // 8, dtype=torch.uint8), flat.new_zeros((), dtype=torch.float32)
        residual = residual_of(gradient, memory)
        scale = torch.tensor(accumulate_mean(flat, residual), device=flat.device)  # float32, as it travels
        bits = pack_signs(residual)
        if not scale.isfinite():
            residual.zero_()
            return bits, torch.full_like(scale, torch.nan)
        residual -= majority(bits.view(1, -1), flat.numel(), scale.item())
        return bits, scale
