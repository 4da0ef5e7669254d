"""A sparse sum whose traffic does not grow with the number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory, check_ratio
from taut.distributed._compressors._sparse import Entries, runs, spread
from taut.distributed._compressors._top_k import TopK, kept_of
from taut.distributed._memory import residual_of
from taut.distributed._traffic import COUNT_BYTES, Message, Traffic, sparse_gather

_INDEX_BYTES = 4
_VALUE_BYTES = 4


@dataclass(frozen=True)
class SparseAllReduce(Compressor):
    """The largest entries of each rank, summed by regions, of which the largest sums come back to all.

    "Near-optimal sparse allreduce for distributed deep learning" (Ok-Topk, PPoPP 2022). Each rank takes its largest
    entries; the indices are cut into as many regions as there are ranks, with about as many entries in each; every
    rank sums one region and gives its largest sums, an equal share of `ratio`, to all. A rank sends at most about
    four words for each kept entry, however many ranks there are. An entry whose sum does not come back returns to the
    residual of the rank that gave it: what was sent plus the new residual is the old residual plus the gradient, to
    the bit. A NaN or infinity is among the first to come back, and is not kept then.

    Args:
        ratio: share of the entries that each rank gives and that comes back, rounded; one of each parameter at least.
    """

    reducible: ClassVar[bool] = True
    overlappable: ClassVar[bool] = False
    shardable: ClassVar[bool] = True

    ratio: float

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks of the entries that came back."""
        for run in runs(gradients):
            given = TopK(self.ratio).take_all(run, memory)
            regions = communicator.gather_sparse(*self._sum_of_region(given, run, communicator))
            indices = torch.cat([region[0] for region in regions]).long()  # regions ascend, and so do these
            sums = torch.cat([region[1] for region in regions])
            mean = torch.zeros(_elements(run), device=sums.device)
            mean[indices] = sums / communicator.size
            spread(mean, run)
            _give_back(given, indices, run, memory)

    def scatter(self, gradient: Gradient, communicator: Communicator, memory: Memory) -> torch.Tensor:
        """This rank's shard, with all entries that any rank has chosen there: as a region that need not come back."""
        return TopK(self.ratio).scatter(gradient, communicator, memory)

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """The bounds of the regions, the entries to the ranks that sum them, and the sums that come back."""
        kept = sum(kept_of(self.ratio, shape.numel()) for shape in shapes)
        back = min(kept, -(-kept // ranks))
        return Traffic(
            (
                Message("all_reduce", COUNT_BYTES * (ranks - 1)),
                Message("all_to_all", COUNT_BYTES * ranks),
                Message("all_to_all", kept * (_INDEX_BYTES + _VALUE_BYTES)),
                *sparse_gather(back * (_INDEX_BYTES + _VALUE_BYTES)),
            )
        )

    def _sum_of_region(self, given: Entries, run: Sequence[Gradient], communicator: Communicator) -> Entries:
        """The largest sums over ranks of this rank's region."""
        pieces = [torch.cat([i.view(torch.uint8), v.view(torch.uint8)]) for i, v in _cut(given, run, communicator)]
        indices, values = [], []
        for theirs in communicator.all_to_all(pieces):
            entries = theirs.numel() // (_INDEX_BYTES + _VALUE_BYTES)
            indices.append(theirs[: entries * _INDEX_BYTES].view(torch.int32))
            values.append(theirs[entries * _INDEX_BYTES :].view(torch.float32))
        places, slots = torch.cat(indices).unique(return_inverse=True)
        sums = torch.zeros(places.numel(), device=places.device)
        for theirs, slot in zip(values, slots.split([i.numel() for i in indices]), strict=True):
            sums.index_add_(0, slot, theirs)  # rank by rank, for the same bits in every run
        kept = sum(kept_of(self.ratio, gradient.tensor.numel()) for gradient in run)
        share = min(sums.numel(), -(-kept // communicator.size))
        largest = sums.abs().topk(share, sorted=False).indices.sort().values
        return Entries(places[largest], sums[largest])


def _cut(
    given: Entries, run: Sequence[Gradient], communicator: Communicator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The entries of each region; its bounds are the mean over ranks of where each would cut its own entries."""
    ranks = communicator.size
    cuts = torch.arange(1, ranks, device=given.indices.device)
    kept = given.indices.numel()
    bounds = given.indices[cuts * kept // ranks].long() if kept else cuts * _elements(run) // ranks
    communicator.all_reduce(bounds)
    bounds //= ranks
    edges = [0, *torch.searchsorted(given.indices.long(), bounds).tolist(), kept]
    lengths = [end - start for start, end in pairwise(edges)]
    return list(zip(given.indices.split(lengths), given.values.split(lengths), strict=True))


def _give_back(given: Entries, returned: torch.Tensor, run: Sequence[Gradient], memory: Memory) -> None:
    """Put entries whose sums did not come back into the residual again."""
    kept = given.values.isfinite() & ~torch.isin(given.indices.long(), returned, assume_unique=True)
    indices, values = given.indices[kept].long(), given.values[kept]
    start = 0
    for gradient in run:
        end = start + gradient.tensor.numel()
        first, last = torch.searchsorted(indices, indices.new_tensor([start, end])).tolist()
        if last > first:
            residual = residual_of(gradient, memory)
            residual[indices[first:last] - start] += values[first:last].to(residual.dtype)
        start = end


def _elements(run: Sequence[Gradient]) -> int:
    return sum(gradient.tensor.numel() for gradient in run)
