"""Ranks that are threads of this process, for studies and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from taut.distributed._compressor import check_whole
from taut.distributed._meeting import Meeting
from taut.distributed._traffic import COUNT_BYTES, Message
from taut.distributed._wire import Coding, pack_entries
from taut.errors import ArgumentError

Result = TypeVar("Result")
TIMEOUT_SECONDS = 1800.0
"""That a rank waits for the others: as long as torch.distributed does."""


class LocalCommunicator:
    """One rank of a group of threads; see `run_ranks`.

    Sums run in the order of the ranks, so that all get the same bits.

    Attributes:
        rank: of this thread.
        size: ranks of the group.
        sent: bytes that this rank would have given to a link so far.
    """

    def __init__(self, rank: int, slots: list[Any], meeting: Meeting) -> None:
        self.rank = rank
        self.size = len(slots)
        self.sent = 0.0
        self._slots = slots
        self._meeting = meeting

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over ranks."""
        if tensor.numel() and self.size > 1:
            self.sent += Message("all_reduce", _bytes(tensor)).sent(self.size)
            total, *others = self._share(tensor.clone())
            total = total.clone()
            for other in others:
                total += other
            tensor.copy_(total)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, (ranks, *shape)."""
        self.sent += Message("all_gather", _bytes(tensor)).sent(self.size)
        return torch.stack(self._share(tensor.clone()))

    def all_gather_uneven(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The one-dimensional tensors of all ranks, of any lengths."""
        self.sent += (self.size - 1) * (COUNT_BYTES + _bytes(tensor))
        return self._share(tensor.clone())

    def all_to_all(self, pieces: list[torch.Tensor]) -> list[torch.Tensor]:
        """Give each rank its one-dimensional piece, of any length; returns what each rank has given to this one."""
        given = [COUNT_BYTES + _bytes(piece) for piece in pieces]
        self.sent += sum(given) - given[self.rank]
        return [theirs[self.rank] for theirs in self._share([piece.clone() for piece in pieces])]

    def gather_sparse(
        self, indices: torch.Tensor, values: torch.Tensor, *, coding: Coding = "plain"
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The entries that each rank has kept: (kept,) int32 indices, ascending, and values as they travel."""
        self.sent += (self.size - 1) * pack_entries(indices, values, coding).numel()
        return self._share((indices.clone(), values.clone()))

    def _share(self, item: Any) -> list[Any]:
        self._slots[self.rank] = item
        self._meeting.wait(self.rank)
        items = list(self._slots)
        self._meeting.wait(self.rank)  # nobody writes again before all have read
        return items


def run_ranks(
    ranks: int, work: Callable[[LocalCommunicator], Result], *, timeout: float = TIMEOUT_SECONDS
) -> list[Result]:
    """Run a function as each rank of a group of threads.

    Args:
        ranks: threads.
        work: called with the communicator of each rank; it makes the same calls in the same order on each of them.
        timeout: seconds that a rank waits for the others in a call. A thread that is late goes on in the background.

    Returns:
        What it returned, by rank.

    Raises:
        ArgumentError: `ranks` is not a whole number above 0, or `timeout` no time above 0.
        CommunicationError: a rank has returned while others wait for it in a call, or did not come in time.
        Exception: the first that a rank raised; the others stop at their next call.
    """
    check_whole("ranks", ranks, 1)
    if not timeout > 0:
        raise ArgumentError("timeout", timeout, expected="seconds above 0")
    meeting = Meeting(ranks, timeout)
    slots: list[Any] = [None] * ranks
    results: list[Any] = [None] * ranks

    def run(rank: int) -> None:
        failure: BaseException | None = None
        try:
            results[rank] = work(LocalCommunicator(rank, slots, meeting))
        except BaseException as error:
            failure = error
        meeting.leave(rank, failure)

    for rank in range(ranks):
        threading.Thread(target=run, args=(rank,), daemon=True).start()
    failure = meeting.wait_for_end()
    if failure is not None:
        raise failure
    return results


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
