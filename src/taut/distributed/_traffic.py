"""What an exchange sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from taut import kernels

Collective: TypeAlias = Literal["all_reduce", "all_gather", "all_to_all"]

COUNT_BYTES = 8
HEADER_BYTES = kernels.MESSAGE_HEADER_BYTES  # of an uneven message: the bytes behind it, the entries, their form


@dataclass(frozen=True, slots=True)
class Message:
    """One collective operation.

    Attributes:
        collective: which.
        size: bytes of the buffer that each rank gives; the mean over ranks where it is uneven.
    """

    collective: Collective
    size: float

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends, with the ring algorithm for an all-reduce."""
        match self.collective:
            case "all_reduce":
                return 2 * (ranks - 1) / ranks * self.size
            case "all_gather":
                return (ranks - 1) * self.size
            case "all_to_all":
                return (ranks - 1) / ranks * self.size


@dataclass(frozen=True, slots=True)
class Traffic:
    """The collective operations of an exchange, in the order in which they run."""

    messages: tuple[Message, ...]

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends."""
        return sum(message.sent(ranks) for message in self.messages)


def sparse_gather(size: float) -> tuple[Message, Message]:
    """The messages of `Communicator.gather_sparse`: the counts, then the bytes of each rank's indices and values."""
    return Message("all_gather", HEADER_BYTES), Message("all_gather", size)


def write_header(message: torch.Tensor, entries: int, form: int) -> None:
    """Begin an uneven message, (HEADER_BYTES + bytes,) uint8."""
    header = message[:HEADER_BYTES].cpu()
    kernels.write_header(header, message.numel() - HEADER_BYTES, entries, form)
    if message.device.type != "cpu":
        message[:HEADER_BYTES] = header


def parse_header(message: torch.Tensor) -> tuple[int, int, int]:
    """The bytes behind the header, the entries, and their form."""
    return kernels.read_header(message if message.device.type == "cpu" else message[:HEADER_BYTES].cpu())
