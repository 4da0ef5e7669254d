"""Ranks that are processes of `torch.distributed`."""

from __future__ import annotations

import torch
import torch.distributed as dist

from taut.distributed._traffic import COUNT_BYTES, Message
from taut.distributed._wire import Coding, gather_packed, gather_uneven, pack_for


class ProcessGroupCommunicator:
    """Collective operations over a process group that nobody else uses.

    Gloo pairs collectives by the order in which they are issued: all calls come from one thread, in the same order on
    every rank.

    Args:
        group: of torch.distributed, on any backend.
        device: that small messages of its own lie on; what the backend supports.

    Attributes:
        rank: of this process in the group.
        size: ranks of the group.
        sent: bytes that this rank has given to the link so far.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device | None = None) -> None:
        self.rank = group.rank()
        self.size = group.size()
        self.sent = 0.0
        self._group = group
        self._device = device or torch.device("cpu")

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over ranks."""
        if tensor.numel() and self.size > 1:
            self._count("all_reduce", tensor)
            there = self._reachable(tensor)
            dist.all_reduce(there, group=self._group)
            if there is not tensor:
                tensor.copy_(there)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, (ranks, *shape)."""
        gathered = tensor.new_empty((self.size, *tensor.shape))
        if tensor.numel():
            self._count("all_gather", tensor)
            dist.all_gather_single(gathered.view(-1), tensor.contiguous().view(-1), group=self._group)
        return gathered

    def all_gather_uneven(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The one-dimensional tensors of all ranks, of any lengths; counts are exchanged first."""
        self.sent += (self.size - 1) * (COUNT_BYTES + tensor.numel() * tensor.element_size())
        return gather_uneven(self._reachable(tensor.contiguous()), self._group)

    def all_to_all(self, pieces: list[torch.Tensor]) -> list[torch.Tensor]:
        """Give each rank its one-dimensional piece, of any length; returns what each rank has given to this one."""
        given = [piece.numel() for piece in pieces]
        counts = torch.tensor(given, device=self._device)
        taken = torch.empty_like(counts)
        self.sent += (self.size - 1) * COUNT_BYTES
        dist.all_to_all_single(taken, counts, group=self._group)
        lengths: list[int] = taken.tolist()
        received = pieces[0].new_empty(sum(lengths))
        self.sent += (sum(given) - given[self.rank]) * pieces[0].element_size()
        dist.all_to_all_single(received, torch.cat(pieces), lengths, given, group=self._group)
        return list(received.split(lengths))

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
        message = pack_for(self._group, indices, values, coding)
        self.sent += (self.size - 1) * message.numel()
        return gather_packed(message, indices, values, self._group, coding=coding)

    def _reachable(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, on the device if the backend knows no other: NCCL takes none of the CPU."""
        return tensor.to(self._device) if self._device.type == "cuda" else tensor

    def _count(self, collective: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        self.sent += Message(collective, size).sent(self.size)  # pyright: ignore[reportArgumentType]
