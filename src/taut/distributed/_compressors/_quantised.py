"""A few bits for each entry, rounded by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory, check_whole
from taut.distributed._memory import next_step
from taut.distributed._rounding import add_quantised, quantise
from taut.distributed._selection import floats_of
from taut.distributed._traffic import Message, Traffic
from taut.errors import ArgumentError
from taut.kernels import QUANTISE_BLOCK


@dataclass(frozen=True)
class QuantisedSGD(Compressor):
    """Whole numbers of a few bits times a step for each block of entries, rounded by chance: right on average.

    "QSGD" (NeurIPS 2017), in blocks of `taut.kernels.QUANTISE_BLOCK` entries of a parameter, whose step is their
    largest magnitude over `2^(bits - 1) - 1`. There is no residual: the expected value of what is sent is the
    gradient. A NaN or infinity makes its block NaN in this step.

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
        codes, steps = [], []
        for gradient in gradients:
            key = f"{self.seed}/{communicator.rank}/{gradient.name}/{next_step(gradient.name, memory)}"
            seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1
            rounded = quantise(gradient.tensor.view(-1).float(), self.bits, seed)
            codes.append(rounded[0])
            steps.append(rounded[1])
        of_steps = 4 * sum(step.numel() for step in steps)
        rows = communicator.all_gather(torch.cat([torch.cat(steps).view(torch.uint8), *codes]))
        all_steps = floats_of(rows[:, :of_steps]).split([s.numel() for s in steps], dim=1)
        all_codes = rows[:, of_steps:].split([c.numel() for c in codes], dim=1)
        for gradient, steps_of, codes_of in zip(gradients, all_steps, all_codes, strict=True):
            mean = torch.zeros(gradient.tensor.numel(), device=gradient.tensor.device)
            for step, code in zip(steps_of, codes_of, strict=True):
                add_quantised(mean, code, step, self.bits, 1 / communicator.size)
            gradient.tensor.copy_(mean.view(gradient.tensor.shape))

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """The bits of each entry, each parameter in whole bytes, and a float32 for each block."""
        size = sum((shape.numel() * self.bits + 7) // 8 + 4 * -(-shape.numel() // QUANTISE_BLOCK) for shape in shapes)
        return Traffic((Message("all_gather", size),))
