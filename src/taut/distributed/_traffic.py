"""What an exchange sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Collective: TypeAlias = Literal["all_reduce", "all_gather", "all_to_all"]

COUNT_BYTES = 8
HEADER_BYTES = 24  # of an uneven message: its bytes, its entries, their form


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
