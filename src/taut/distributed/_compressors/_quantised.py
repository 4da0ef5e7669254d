"""A few bits for each entry, rounded by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory, check_whole
from taut.distributed._memory import generator, next_step
from taut.distributed._traffic import Message, Traffic
from taut.errors import ArgumentError


@dataclass(frozen=True)
class QuantisedSGD(Compressor):
    """Whole numbers of a few bits times a scale for each parameter, rounded up or down by chance: right on average.

    "QSGD" (NeurIPS 2017), scaled by the largest magnitude of a parameter. There is no residual: the expected value of
    what is sent is the gradient. A NaN or infinity makes the whole parameter NaN in this step.

    Args:
        bits: of each entry with its sign: 2, 4 or 8.
        seed: with rank, name of the parameter and step it gives the rounding; the same on all ranks.
    """

    reducible: ClassVar[bool] = False
    overlappable: ClassVar[bool] = True

    bits: Literal[2, 4, 8] = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in (2, 4, 8):
            raise ArgumentError("bits", self.bits, expected="2, 4 or 8")
        check_whole("seed", self.seed, 0)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks of what they were rounded to."""
        packed, scales = [], []
        for gradient in gradients:
            flat = gradient.tensor.view(-1)
            random = generator(
                flat.device, self.seed, communicator.rank, gradient.name, next_step(gradient.name, memory)
            )
            codes, scale = self._encode(flat.float(), random)
            packed.append(codes)
            scales.append(scale)
        payloads = communicator.all_gather(torch.cat(packed))
        all_scales = communicator.all_gather(torch.stack(scales))  # (ranks, parameters)
        start = 0
        for place, (gradient, codes) in enumerate(zip(gradients, packed, strict=True)):
            flat = gradient.tensor.view(-1)
            mean = torch.zeros(flat.numel(), device=flat.device)
            for payload, scale in zip(payloads, all_scales[:, place] / communicator.size, strict=True):
                mean += self._levels(payload[start : start + codes.numel()], flat.numel()) * scale
            flat.copy_(mean)
            start += codes.numel()

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """The bits of each entry, each parameter in whole bytes, and a float32 for each parameter."""
        size = sum((shape.numel() * self.bits + 7) // 8 for shape in shapes)
        return Traffic((Message("all_gather", size), Message("all_gather", 4 * len(shapes))))

    @property
    def _most(self) -> int:
        return 2 ** (self.bits - 1) - 1

    def _encode(self, flat: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes in whole bytes, and the worth of one unit."""
        largest = flat.abs().max() if flat.numel() else flat.new_zeros(())
        if not largest.isfinite():
            return self._pack(torch.zeros_like(flat)), torch.full_like(largest, torch.nan)
        unit = largest / self._most
        if unit == 0:  # all zeros, or too small to be told from them
            return self._pack(torch.zeros_like(flat)), torch.zeros_like(largest)
        noise = torch.rand(flat.shape, generator=random, device=flat.device)
        return self._pack((flat / unit + noise).floor().clamp_(-self._most, self._most)), unit

    def _pack(self, levels: torch.Tensor) -> torch.Tensor:
        fields = 8 // self.bits
        codes = (levels + self._most).to(torch.uint8)
        codes = torch.nn.functional.pad(codes, (0, -codes.numel() % fields)).view(-1, fields)
        packed = codes[:, 0].clone()
        for field in range(1, fields):
            packed |= codes[:, field] << (field * self.bits)
        return packed

    def _levels(self, packed: torch.Tensor, elements: int) -> torch.Tensor:
        places = torch.arange(0, 8, self.bits, dtype=torch.uint8, device=packed.device)
        codes = ((packed[:, None] >> places) & (2**self.bits - 1)).flatten()[:elements]
        return codes.to(torch.float32) - self._most
