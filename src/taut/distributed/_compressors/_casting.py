"""Whole gradients, as they are or in 16 bits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._memory import joined
from taut.distributed._traffic import Message, Traffic


class _Casting(Compressor):
    reducible: ClassVar[bool] = True
    overlappable: ClassVar[bool] = True
    shardable: ClassVar[bool] = True

    @abstractmethod
    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        """How a gradient of some dtype travels."""

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks, added up in the dtype that travels; memory is not used."""
        for dtype in sorted({gradient.tensor.dtype for gradient in gradients}, key=str):
            tensors = [gradient.tensor for gradient in gradients if gradient.tensor.dtype == dtype]
            flat = joined(tensors)
            travelling = flat if flat is not None else torch.cat([tensor.view(-1) for tensor in tensors])
            travelling = travelling.to(self._dtype(dtype)).div_(communicator.size)
            communicator.all_reduce(travelling)
            if flat is not None:
                if travelling.dtype != flat.dtype:
                    flat.copy_(travelling)
                continue
            for tensor, mean in zip(tensors, travelling.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def scatter(self, gradient: Gradient, communicator: Communicator, memory: Memory) -> torch.Tensor:
        """This rank's shard of the mean, added up in the dtype that travels, in the order of the ranks."""
        dtype = gradient.tensor.dtype
        travelling = gradient.tensor.to(self._dtype(dtype)).div_(communicator.size)
        first, *others = communicator.all_to_all(list(travelling.chunk(communicator.size)))
        for other in others:
            first += other
        return first.to(dtype)

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """One all-reduce of all elements, of float32 gradients."""
        elements = sum(shape.numel() for shape in shapes)
        return Traffic((Message("all_reduce", elements * self._dtype(torch.float32).itemsize),))


@dataclass(frozen=True)
class NoCompression(_Casting):
    """The mean over ranks, bit for bit as DistributedDataParallel computes it."""

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@dataclass(frozen=True)
class Float16(_Casting):
    """Gradients travel and are added up in float16; entries beyond 65,504 times the ranks become infinite.

    The bits are those of torch's own `fp16_compress_hook`.
    """

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float16


@dataclass(frozen=True)
class BFloat16(_Casting):
    """Gradients travel and are added up in bfloat16: the range of float32 with 8 bits of precision."""

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.bfloat16
