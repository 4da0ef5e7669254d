"""What a training step computes: its gradients, when they are ready, and the buckets that they travel in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from taut.errors import ArgumentError, ModelError

BUCKET_BYTES = 25 * 2**20
_FIRST_BUCKET_BYTES = 2**20  # of DistributedDataParallel, so that communication begins early


@dataclass(frozen=True, slots=True)
class Bucket:
    """Gradients that travel together.

    Attributes:
        shapes: of the gradients.
        ready: seconds from the start of the backward pass until all of them are computed.
    """

    shapes: tuple[torch.Size, ...]
    ready: float

    @property
    def elements(self) -> int:
        """Of all gradients."""
        return sum(shape.numel() for shape in self.shapes)


@dataclass(frozen=True, slots=True)
class Workload:
    """A training step on one device that nothing else uses.

    Attributes:
        name: of the model.
        shapes: of the parameters, in the order in which their gradients are ready.
        ready: seconds from the start of the backward pass until each gradient is ready, ascending.
        backward: seconds of the backward pass.
        other: seconds of everything else, forward pass and optimiser.
    """

    name: str
    shapes: tuple[torch.Size, ...]
    ready: tuple[float, ...]
    backward: float
    other: float

    @property
    def elements(self) -> int:
        """Of all gradients."""
        return sum(shape.numel() for shape in self.shapes)

    def scaled(self, backward: float) -> Workload:
        """The same step on a device that takes `backward` seconds for the backward pass.

        Raises:
            ArgumentError: it is not positive.
        """
        if not backward > 0:
            raise ArgumentError("backward", backward, expected="seconds above 0")
        factor = backward / self.backward
        ready = tuple(factor * one for one in self.ready)
        return replace(self, ready=ready, backward=backward, other=factor * self.other)

    def buckets(self, size: int = BUCKET_BYTES) -> list[Bucket]:
        """As DistributedDataParallel forms them after its first iteration.

        Args:
            size: bytes that close a bucket (`bucket_cap_mb`); by default the first one closes at 1 MB already.
        """
        found: list[Bucket] = []
        shapes: list[torch.Size] = []
        filled, limit = 0, _FIRST_BUCKET_BYTES if size == BUCKET_BYTES else size
        for shape, ready in zip(self.shapes, self.ready, strict=True):
            shapes.append(shape)
            filled += 4 * shape.numel()
            if filled >= limit:
                found.append(Bucket(tuple(shapes), ready))
                shapes, filled, limit = [], 0, size
        if shapes:
            found.append(Bucket(tuple(shapes), self.ready[-1]))
        return found


def even_workload(name: str, shapes: Sequence[Sequence[int]], backward: float, other: float = 0.0) -> Workload:
    """A workload whose gradients get ready one after the other, each after a share of its size; the last shape first.

    Args:
        name: of the model.
        shapes: of the parameters, in the order of the forward pass.
        backward: seconds of the backward pass.
        other: seconds of everything else.

    Raises:
        ArgumentError: there is no parameter, or a time is negative.
    """
    sizes = [torch.Size(shape) for shape in reversed(shapes)]
    total = sum(size.numel() for size in sizes)
    if total == 0 or not backward > 0 or other < 0:
        raise ArgumentError("shapes, backward, other", (len(sizes), backward, other), expected="parameters and seconds")
    done, ready = 0, []
    for size in sizes:
        done += size.numel()
        ready.append(backward * done / total)
    return Workload(name, tuple(sizes), tuple(ready), backward, other)


def measure_workload(
    name: str,
    module: torch.nn.Module,
    inputs: tuple[Any, ...],
    *,
    loss: Callable[[Any], Any] | None = None,
    repeats: int = 5,
) -> Workload:
    """Time the forward and backward pass of a module, and when each gradient is ready, in the fastest of some steps.

    Args:
        name: of the model.
        module: put into training mode while it is measured; its gradients are left empty.
        inputs: of one step on one rank.
        loss: from the output to a scalar; by default the sum of all floating-point tensors in it.
        repeats: steps that count, after one that does not.

    Raises:
        ModelError: it has no parameter that gets a gradient.
    """
    parameters = [one for one in module.parameters() if one.requires_grad]
    order: dict[int, list[float]] = {id(one): [] for one in parameters}
    started = 0.0

    def note(parameter: torch.Tensor) -> None:
        order[id(parameter)].append(time.perf_counter() - started)

    handles = [one.register_post_accumulate_grad_hook(note) for one in parameters]
    training = module.training
    forwards, backwards = [], []
    try:
        module.train()
        for _ in range(repeats + 1):
            module.zero_grad(set_to_none=True)
            begun = time.perf_counter()
            value = (loss or _sum_of)(module(*inputs))
            started = time.perf_counter()
            value.backward()
            backwards.append(time.perf_counter() - started)
            forwards.append(started - begun)
    except RuntimeError as error:
        raise ModelError(f"{name}: its backward pass fails: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
        module.train(training)
        module.zero_grad(set_to_none=True)
    # What else the host does only adds: the fastest step is the least disturbed one.
    fastest = min(range(1, repeats + 1), key=lambda step: forwards[step] + backwards[step])
    used = [(order[id(one)][fastest], one.shape) for one in parameters if len(order[id(one)]) == repeats + 1]
    if not used:
        raise ModelError(f"{name}: no parameter gets a gradient", fix="leave requires_grad of some of them True")
    used.sort(key=lambda one: one[0])
    ready, shapes = zip(*used, strict=True)
    return Workload(name, tuple(shapes), tuple(ready), max(backwards[fastest], ready[-1]), forwards[fastest])


def _sum_of(output: Any) -> torch.Tensor:
    from torch.utils._pytree import tree_leaves

    tensors = [one for one in tree_leaves(output) if isinstance(one, torch.Tensor) and one.requires_grad]
    if not tensors:
        raise ModelError("the output holds no tensor that depends on a parameter")
    return torch.stack([one.float().sum() for one in tensors]).sum()
