"""Ranks that are threads of this process, for studies and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from taut.distributed._traffic import COUNT_BYTES, Message
from taut.distributed._wire import Coding, pack_entries

Result = TypeVar("Result")


class LocalCommunicator:
    """One rank of a group of threads; see `run_ranks`.

    Sums run in the order of the ranks, so that all get the same bits.

    Attributes:
        rank: of this thread.
        size: ranks of the group.
        sent: bytes that this rank would have given to a link so far.
    """

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.rank = rank
        self.size = len(slots)
        self.sent = 0.0
        self._slots = slots
        self._barrier = barrier

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
        self._barrier.wait()
        items = list(self._slots)
        self._barrier.wait()  # nobody writes again before all have read
        return items


def run_ranks(ranks: int, work: Callable[[LocalCommunicator], Result]) -> list[Result]:
    """Run a function as each rank of a group of threads.

    Args:
        ranks: threads.
        work: called with the communicator of each rank; it makes the same calls in the same order on each of them.

    Returns:
        What it returned, by rank.

    Raises:
        Exception: the first that a rank raised; the others stop at their next call.
    """
    barrier = threading.Barrier(ranks)
    slots: list[Any] = [None] * ranks
    results: list[Any] = [None] * ranks
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(LocalCommunicator(rank, slots, barrier))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
