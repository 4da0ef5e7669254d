"""What a compressor may do with other ranks."""

from __future__ import annotations

from typing import Protocol

import torch

from taut.distributed._wire import Coding


class Communicator(Protocol):
    """Collective operations of a group of ranks, called in the same order on each of them.

    Attributes:
        rank: of this process in the group.
        size: ranks of the group.
        sent: bytes that this rank has given to the link so far, by the formulas of `Message.sent`.
    """

    rank: int
    size: int
    sent: float

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over ranks."""
        ...

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, (ranks, *shape)."""
        ...

    def all_gather_uneven(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The one-dimensional tensors of all ranks, of any lengths; counts are exchanged first."""
        ...

    def all_to_all(self, pieces: list[torch.Tensor]) -> list[torch.Tensor]:
        """Give each rank its one-dimensional piece, of any length; returns what each rank has given to this one."""
        ...

    def gather_sparse(
        self, indices: torch.Tensor, values: torch.Tensor, *, coding: Coding = "plain"
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The entries that each rank has kept.

        Args:
            indices: (kept,) int32, ascending.
            values: (kept,) float32 or bfloat16, as it is to travel.
            coding: of the indices, the same on every rank.

        Returns:
            Indices and values of each rank; counts are exchanged first.
        """
        ...
