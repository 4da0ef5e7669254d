"""Error feedback around a selection of entries."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._memory import forget_not_finite, is_zero, joined, residual_of
from taut.distributed._selection import scatter_add
from taut.distributed._traffic import Message, Traffic, sparse_gather
from taut.distributed._wire import Coding, sparse_bytes
from taut.errors import ArgumentError

ValueType: TypeAlias = Literal["float32", "bfloat16"]
"""How values travel."""

_MOST_ELEMENTS = 2**31 - 1


class Entries(NamedTuple):
    """What a rank sends of a gradient: indices, (kept,) int32 ascending, and values, (kept,)."""

    indices: torch.Tensor
    values: torch.Tensor


class SparseCompressor(Compressor):
    """Sends some entries of gradient plus residual; the residual keeps the others, and what rounding has cut off.

    On each rank, and in every step, what was sent plus the new residual is the old residual plus the gradient, to the
    bit where values travel as float32 and gradients are of at most 32 bits. A NaN or infinity is sent and not kept.
    """

    reducible: ClassVar[bool] = False
    overlappable: ClassVar[bool] = False
    shardable: ClassVar[bool] = True

    values: ValueType
    coding: Coding

    @abstractmethod
    def choose(self, gradient: Gradient, memory: Memory) -> Entries:
        """Add a gradient to what is kept, and take out what is to be sent.

        Args:
            gradient: not zero everywhere, not empty.
            memory: read and written.

        Returns:
            The entries of the flat gradient, values in the dtype of the residual.
        """

    @abstractmethod
    def expected(self, elements: int) -> int:
        """How many of so many entries are sent, or are expected to be."""

    def travels_dense(self, elements: int, ranks: int) -> bool:
        """Whether an all-reduce of all elements, zeros where nothing is sent, takes no more than gathering."""
        gathered = (ranks - 1) * self._bytes(self.expected(elements), elements)
        return gathered >= Message("all_reduce", elements * 4).sent(ranks)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each gradient by the mean over ranks of what the ranks sent."""
        dense, sparse = [], []
        for gradient in gradients:
            elements = gradient.tensor.numel()
            (dense if self.travels_dense(elements, communicator.size) else sparse).append(gradient)
        for run in runs(dense):
            mean = torch.zeros(sum(gradient.tensor.numel() for gradient in run), device=run[0].tensor.device)
            entries = self.take_all(run, memory)
            mean[entries.indices] = entries.values.float()
            communicator.all_reduce(mean)
            spread(mean.div_(communicator.size), run)
        for run in runs(sparse):
            gathered = communicator.gather_sparse(*self.take_all(run, memory), coding=self.coding)
            tensors = [gradient.tensor for gradient in run]
            flat = joined(tensors)
            if flat is not None and flat.dtype == torch.float32:
                mean = flat.zero_()
            else:
                flat, mean = None, torch.zeros(sum(tensor.numel() for tensor in tensors), device=tensors[0].device)
            for indices, values in gathered:
                scatter_add(mean, indices, values, 1 / communicator.size)
            if flat is None:
                spread(mean, run)

    def scatter(self, gradient: Gradient, communicator: Communicator, memory: Memory) -> torch.Tensor:
        """This rank's shard: each rank gets the entries of its shard only."""
        flat = gradient.tensor
        shard = flat.numel() // communicator.size
        entries = self.take_all([gradient], memory)
        bounds = torch.arange(1, communicator.size, device=flat.device) * shard
        counts = torch.searchsorted(entries.indices.long(), bounds).diff(
            prepend=bounds.new_zeros(1), append=bounds.new_tensor([entries.indices.numel()])
        )
        lengths: list[int] = counts.tolist()
        indices = communicator.all_to_all(list(entries.indices.split(lengths)))
        values = communicator.all_to_all(list(entries.values.split(lengths)))
        mean = torch.zeros(shard, device=flat.device)
        for places, theirs in zip(indices, values, strict=True):
            scatter_add(mean, places - communicator.rank * shard, theirs, 1 / communicator.size)
        return mean.to(flat.dtype)

    def take_all(self, gradients: Sequence[Gradient], memory: Memory) -> Entries:
        """What this rank sends of gradients that lie one behind the other, values in the dtype that travels."""
        dtype = _dtype(self.values)
        device = gradients[0].tensor.device
        indices, values = (
            [torch.empty(0, dtype=torch.int32, device=device)],
            [torch.empty(0, dtype=dtype, device=device)],
        )
        start = 0
        for gradient in gradients:
            if not is_zero(gradient.tensor.view(-1)):
                entries = self.choose(gradient, memory)
                if not entries.values.sum().isfinite():
                    forget_not_finite(gradient, memory)  # there may be more of it than entries that are sent
                indices.append(entries.indices + start)
                values.append(self._round(entries, residual_of(gradient, memory)))
            start += gradient.tensor.numel()
        return Entries(torch.cat(indices), torch.cat(values))

    def _round(self, entries: Entries, residual: torch.Tensor) -> torch.Tensor:
        rounded = entries.values.to(_dtype(self.values))
        if rounded.dtype != entries.values.dtype:
            error = entries.values - rounded.to(entries.values.dtype)
            residual[entries.indices] += error.where(error.isfinite(), 0)
        return rounded

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """Gathered indices and values, and an all-reduce of those gradients for which it is less."""
        elements = [shape.numel() for shape in shapes]
        travels_dense = [self.travels_dense(count, ranks) for count in elements]
        dense = sum(itertools.compress(elements, travels_dense))
        sparse = [count for count, whole in zip(elements, travels_dense, strict=True) if not whole]
        messages = [Message("all_reduce", 4 * dense)] * bool(dense)
        if sparse:
            kept = sum(self.expected(count) for count in sparse)
            messages += sparse_gather(self._bytes(kept, sum(sparse)))
        return Traffic(tuple(messages))

    def _bytes(self, kept: int, elements: int) -> float:
        return sparse_bytes(kept, elements, _dtype(self.values), self.coding)


def runs(gradients: Sequence[Gradient], most: int = _MOST_ELEMENTS) -> Iterator[list[Gradient]]:
    """Groups of gradients whose elements an int32 can count."""
    run: list[Gradient] = []
    elements = 0
    for gradient in gradients:
        if run and elements + gradient.tensor.numel() > most:
            yield run
            run, elements = [], 0
        run.append(gradient)
        elements += gradient.tensor.numel()
    if run:
        yield run


def spread(flat: torch.Tensor, gradients: Sequence[Gradient]) -> None:
    """Copy the pieces of a flat tensor to the gradients."""
    pieces = flat.split([gradient.tensor.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.tensor.copy_(piece.view(gradient.tensor.shape))


def check_travel(values: str, coding: str) -> None:
    """Refuse an unknown dtype of values or coding of entries."""
    if values not in ("float32", "bfloat16"):
        raise ArgumentError("values", values, expected="float32 or bfloat16")
    if coding not in ("plain", "compact"):
        raise ArgumentError("coding", coding, expected="plain or compact")


def _dtype(values: ValueType) -> torch.dtype:
    return torch.bfloat16 if values == "bfloat16" else torch.float32
