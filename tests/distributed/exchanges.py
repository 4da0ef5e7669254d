"""Exchanges between ranks that are threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from taut.distributed import Compressor, Gradient, LocalCommunicator, Memory, run_ranks

EVERY_SHAPE = ((8, 12), (30,), (), (0, 3), (4, 3, 2, 2), (1,))


class Rank(NamedTuple):
    """What a rank has after an exchange: gradients by name, memory, bytes sent."""

    gradients: dict[str, torch.Tensor]
    memory: Memory
    sent: float


def exchange(
    compressor: Compressor, gradients: Sequence[dict[str, torch.Tensor]], memories: Sequence[Memory] | None = None
) -> list[Rank]:
    """One exchange of the gradients of each rank, by name; memories are written."""

    def work(communicator: LocalCommunicator) -> Rank:
        memory = memories[communicator.rank] if memories is not None else {}
        own = {name: tensor.clone() for name, tensor in gradients[communicator.rank].items()}
        compressor.exchange([Gradient(name, tensor) for name, tensor in own.items()], communicator, memory)
        return Rank(own, memory, communicator.sent)

    return run_ranks(len(gradients), work)


def random_gradients(
    ranks: int, shapes: Sequence[tuple[int, ...]] = EVERY_SHAPE, seed: int = 0, dtype: torch.dtype = torch.float32
) -> list[dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(seed)
    return [
        {f"p{place}": torch.randn(shape, generator=random).to(dtype) for place, shape in enumerate(shapes)}
        for _ in range(ranks)
    ]


def whole_gradients(
    ranks: int, shapes: Sequence[tuple[int, ...]] = EVERY_SHAPE, seed: int = 0
) -> list[dict[str, torch.Tensor]]:
    """Small whole numbers, of which sums are exact."""
    return [
        {name: (tensor * 16).round() for name, tensor in gradients.items()}
        for gradients in random_gradients(ranks, shapes, seed)
    ]


def total(memories: Sequence[Memory], name: str, like: torch.Tensor, quantity: str = "residual") -> torch.Tensor:
    """The sum over ranks of a quantity of a parameter; zeros where there is none."""
    return torch.stack([memory.get(name, {}).get(quantity, torch.zeros_like(like)) for memory in memories]).sum(dim=0)
