"""What a compressor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self, TypeAlias

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._traffic import Traffic
from taut.errors import ArgumentError

Memory: TypeAlias = dict[str, dict[str, torch.Tensor]]
"""What is kept from step to step, by the name of the parameter and the name of the quantity, e.g. "residual"."""


FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What gradients may be of."""


class _Named(NamedTuple):
    name: str
    tensor: torch.Tensor


class Gradient(_Named):
    """The gradient of one parameter on this rank.

    Args:
        name: of the parameter in the module.
        tensor: of the shape of the parameter, contiguous; an exchange replaces it.

    Raises:
        ArgumentError: the tensor is not of real floating-point numbers.
    """

    __slots__ = ()

    def __new__(cls, name: str, tensor: torch.Tensor) -> Self:
        if tensor.dtype not in FLOATS:
            raise ArgumentError(f"gradient {name}", tensor.dtype, expected="float32, float64, float16 or bfloat16")
        return super().__new__(cls, name, tensor)


class Compressor(ABC):
    """Replaces gradients by their mean over ranks, or by what comes near it with less traffic.

    A compressor is a frozen dataclass: its fields are its settings, equal on all ranks. What it keeps from step to step
    lies in a `Memory`, by the name of the parameter, so that it outlives buckets, checkpoints and changes of the level.

    A gradient that is zero everywhere on a rank, as that of an unused parameter, sends nothing from there and leaves
    its residual as it is: what is sent for a parameter that no rank has used would be dropped.

    Attributes:
        reducible: messages are summed on their way, so that traffic does not grow with the number of ranks.
        overlappable: encoding is cheap enough to run beside the backward pass.
        shardable: `scatter` is there, which sharded parameters need.
    """

    reducible: ClassVar[bool]
    overlappable: ClassVar[bool]
    shardable: ClassVar[bool] = False

    @abstractmethod
    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks of what the ranks sent, and keep in memory what was not sent.

        Args:
            gradients: of some parameters, the same ones in the same order on each rank.
            communicator: the ranks; every rank calls it in the same order.
            memory: read and written.
        """

    @abstractmethod
    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """What one exchange of gradients of such shapes sends; the expected amount where it depends on the data."""

    def scatter(self, gradient: Gradient, communicator: Communicator, memory: Memory) -> torch.Tensor:
        """This rank's shard of the mean over ranks of what the ranks sent; what was not sent stays in memory.

        Args:
            gradient: of a group of parameters, (ranks * shard,), in the order of the shards; may be overwritten.
            communicator: the ranks; every rank calls it in the same order.
            memory: read and written.

        Returns:
            The shard, (shard,).

        Raises:
            ArgumentError: the compressor needs whole matrices, which sharded parameters do not have.
        """
        raise ArgumentError(
            "compressor",
            self,
            expected="for a sharded module one that works on flat shards: NoCompression, Float16, BFloat16, TopK, ...",
            fix="take one of those, or train with DistributedDataParallel",
        )


def check_ratio(name: str, ratio: float) -> None:
    """Refuse a share of entries that is not above 0 and at most 1."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise ArgumentError(name, ratio, expected="a share of the entries above 0 and at most 1, e.g. 0.01")


def check_whole(name: str, value: int, least: int) -> None:
    """Refuse what is no whole number of at least some value."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(name, value, expected=f"a whole number of at least {least}")
