"""Small trainings on ranks that are processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from taut.distributed import Compressor, Handle, Memory, attach

WIDTH = 24
CAP_MB = 0.008  # three buckets and more, once DDP has rebuilt them


class Branches(torch.nn.Module):
    """A trunk, and branches of which a step uses those it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Linear(WIDTH, WIDTH)
        self.even = torch.nn.Linear(WIDTH, WIDTH)
        self.never = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, even: bool) -> torch.Tensor:
        x = self.trunk(x)
        return self.even(x) if even else x


def network(dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = []
    for _ in range(4):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 3)).to(dtype)


def batches(rank: int, steps: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(rank)
    return [torch.randn((8, WIDTH), generator=random).to(dtype) for _ in range(steps)]


def loss_of(outputs: torch.Tensor) -> torch.Tensor:
    return (outputs.float() - 1).square().mean()


def wrap(module: torch.nn.Module, **options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(module, **{"bucket_cap_mb": CAP_MB, **options})


def optimiser(module: torch.nn.Module, rate: float = 0.05, momentum: float = 0.9) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), rate, momentum=momentum)


def train(
    rank: int,
    steps: int,
    prepare: Callable[[DistributedDataParallel], Handle | None],
    *,
    dtype: torch.dtype = torch.float32,
    **settings: float,
) -> tuple[dict[str, torch.Tensor], Handle | None]:
    """Train a network; returns its parameters."""
    model = wrap(network(dtype))
    handle = prepare(model)
    descent = optimiser(model, **settings)
    for batch in batches(rank, steps, dtype):
        descent.zero_grad()
        loss_of(model(batch)).backward()
        descent.step()
    return parameters(model.module), handle


def train_with(rank: int, steps: int, compressor: Compressor, **options: Any) -> dict[str, Any]:
    trained, handle = train(rank, steps, lambda model: attach(model, compressor), **options)
    assert handle is not None
    return {"parameters": trained, "memory": copied(handle.memory), "statistics": handle.statistics}


def train_each(rank: int, compressors: Sequence[Compressor], steps: int) -> dict[str, Any]:
    """Trainings with each compressor, and the loss at the end on inputs that nobody was trained on.

    A residual delays gradients, so that the rate is low; momentum is left to the compressor that has it.
    """
    found = {}
    for compressor in compressors:
        trained = train_with(rank, steps, compressor, rate=0.02, momentum=0.0)
        model = network()
        model.load_state_dict(trained["parameters"])
        loss = loss_of(model(batches(9, 1)[0])).item()
        found[repr(compressor)] = {**trained, "loss": loss}
    return found


def parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


def copied(memory: Mapping[str, Mapping[str, torch.Tensor]]) -> Memory:
    return {name: {key: tensor.clone() for key, tensor in kept.items()} for name, kept in memory.items()}
