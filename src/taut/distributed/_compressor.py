"""What a compressor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._traffic import Traffic

Memory: TypeAlias = dict[str, dict[str, torch.Tensor]]
"""What is kept from step to step, by the name of the parameter and the name of the quantity, e.g. "residual"."""


class Gradient(NamedTuple):
    """The gradient of one parameter on this rank.

    Attributes:
        name: of the parameter in the module.
        tensor: of the shape of the parameter, contiguous; an exchange replaces it.
    """

    name: str
    tensor: torch.Tensor


class Compressor(ABC):
    """Replaces gradients by their mean over ranks, or by what comes near it with less traffic.

    A compressor is a frozen dataclass: its fields are its settings, equal on all ranks. What it keeps from step to step
    lies in a `Memory`, by the name of the parameter, so that it outlives buckets, checkpoints and changes of the level.

    Attributes:
        reducible: messages are summed on their way, so that traffic does not grow with the number of ranks.
        overlappable: encoding is cheap enough to run beside the backward pass.
    """

    reducible: ClassVar[bool]
    overlappable: ClassVar[bool]

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
