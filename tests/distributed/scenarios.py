"""What the ranks of the tests do; all of it in one start of the processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from training import (
    Branches,
    batches,
    copied,
    gradients,
    loss_of,
    network,
    optimiser,
    parameters,
    train,
    train_with,
    wrap,
)

from taut.distributed import (
    BFloat16,
    Communicator,
    Compressor,
    DeepGradientCompression,
    Float16,
    Gradient,
    HardThreshold,
    Memory,
    NoCompression,
    PowerSGD,
    RandomK,
    SparseAllReduce,
    TopK,
    Traffic,
    attach,
)
from taut.errors import KernelError

STEPS = 6


def run(rank: int, ranks: int, compressors: Sequence[Compressor], kill: bool) -> dict[str, Any]:
    """All scenarios, by name; the last one ends the job."""
    found: dict[str, Any] = {
        "every": {repr(compressor): train_with(rank, STEPS, compressor) for compressor in compressors},
        "plain": train(rank, STEPS, lambda model: None)[0],
        "torch float16": train(rank, STEPS, torch_float16)[0],
        "bfloat16 gradients": train_with(rank, STEPS, TopK(0.1), dtype=torch.bfloat16),
        "options": {name: option(rank, name) for name in ("gradient_as_bucket_view", "static_graph")},
        "channels last": channels_last(rank),
        "unused": unused(rank),
        "accumulation": accumulation(rank, TopK(0.2)),
        "uneven": uneven(rank),
        "resumed": {repr(c): resumed(rank, c) for c in (TopK(0.1), RandomK(0.1), PowerSGD(1), SparseAllReduce(0.1))},
        "resumed deep": resumed(rank, DeepGradientCompression(0.1, warm_up=5)),
        "levels": levels(rank),
        "errors": errors(rank),
        "one rank": one_rank(rank, ranks),
        "sharded": sharded(rank, ranks),
    }
    if kill:
        found["killed"] = killed(rank)
    return found


def torch_float16(model: torch.nn.parallel.DistributedDataParallel) -> None:
    model.register_comm_hook(None, fp16_compress_hook)


def option(rank: int, name: str) -> dict[str, torch.Tensor]:
    model = wrap(network(), **{name: True})
    attach(model, TopK(0.1))
    descent = optimiser(model)
    for batch in batches(rank, STEPS):
        _step(model, descent, batch)
    return parameters(model.module)


def channels_last(rank: int) -> dict[str, dict[str, torch.Tensor]]:
    """A convolution in both layouts of memory, by layout and parameter."""
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3))
        model = wrap(module.to(memory_format=layout))  # pyright: ignore[reportCallIssue]
        attach(model, PowerSGD(2))
        descent = optimiser(model, momentum=0.0)
        for batch in batches(rank, STEPS):
            _step(model, descent, batch.repeat(1, 8).view(8, 3, 8, 8).contiguous(memory_format=layout))
        found[str(layout)] = parameters(model.module)
    return found


def unused(rank: int) -> dict[str, Any]:
    """Branches that no rank uses, that all use in some steps only, and that one rank uses.

    Returns sums over ranks and steps, by parameter: of what was sent plus residuals, and of all gradients.
    """
    torch.manual_seed(0)
    model = wrap(Branches(), find_unused_parameters=True)
    handle = attach(model, TopK(0.05))
    given = {name: torch.zeros_like(parameter) for name, parameter in model.module.named_parameters()}
    kept = {name: torch.zeros_like(parameter) for name, parameter in model.module.named_parameters()}
    for step, batch in enumerate(batches(rank, STEPS)):
        even = step % 2 == 0 if step < 4 else rank == 0
        alone = Branches()
        alone.load_state_dict(model.module.state_dict())
        model.zero_grad()
        loss_of(model(batch, even)).backward()
        loss_of(alone(batch, even)).backward()
        for total, module in ((given, alone), (kept, model.module)):
            for name, gradient in gradients(module).items():
                if gradient is not None:
                    total[name] += gradient
    for name, total in kept.items():
        total += handle.memory.get(name, {}).get("residual", torch.zeros_like(total))
    for total in (*given.values(), *kept.values()):
        dist.all_reduce(total)  # what was sent is a mean, which is the same on each rank
    return {"given": given, "kept": kept, "names": sorted(handle.memory)}


def accumulation(rank: int, compressor: Compressor) -> dict[str, Any]:
    """Steps of two batches, of which only the second is exchanged; and of the two as one batch."""
    found = {}
    for joint in (False, True):
        model = wrap(network())
        handle = attach(model, compressor)
        descent = optimiser(model)
        data = batches(rank, 2 * STEPS)
        for first, second in zip(data[::2], data[1::2], strict=True):
            descent.zero_grad()
            if joint:
                (loss_of(model(torch.cat([first, second]))) * 2).backward()
            else:
                with model.no_sync():
                    loss_of(model(first)).backward()
                loss_of(model(second)).backward()
            descent.step()
        found[joint] = parameters(model.module)
        assert handle.statistics.steps == STEPS
    return {"apart": found[False], "joint": found[True]}


def uneven(rank: int) -> dict[str, torch.Tensor]:
    """The first rank runs out of data two steps before the others."""
    model = wrap(network())
    attach(model, TopK(0.1))
    descent = optimiser(model)
    with Join([model]):
        for batch in batches(rank, STEPS if rank else STEPS - 2):
            descent.zero_grad()
            loss_of(model(batch)).backward()
            descent.step()
    return parameters(model.module)


def resumed(rank: int, compressor: Compressor) -> dict[str, Any]:
    """A run in one go, and one that is stored in the middle and taken up by new objects."""
    through = wrap(network())
    handle, descent = attach(through, compressor), optimiser(through)
    stored: dict[str, Any] = {}
    for step, batch in enumerate(batches(rank, 2 * STEPS)):
        if step == STEPS:
            stored = {
                "model": parameters(through.module),
                "momenta": [momentum.clone() for momentum in _momenta(descent)],
                "exchange": handle.state_dict(),
            }
        _step(through, descent, batch)
    again = wrap(network())
    handle, descent = attach(again, compressor), optimiser(again)
    _step(again, descent, batches(rank, 1)[0])  # other residuals and buckets than those to come
    again.module.load_state_dict(stored["model"])
    for kept, stored_momentum in zip(_momenta(descent), stored["momenta"], strict=True):
        kept.copy_(stored_momentum)
    handle.load_state_dict(stored["exchange"])
    for batch in batches(rank, 2 * STEPS)[STEPS:]:
        _step(again, descent, batch)
    return {"through": parameters(through.module), "again": parameters(again.module)}


class Scripted:
    """A controller that each rank is given another script of."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.seen: list[str] = []

    def observe(self, name: str, gradient: torch.Tensor) -> None:
        self.seen.append(name)

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        if epoch == 3:
            return {"0.weight": 7} if self.rank == 0 else {}
        if epoch == 4 and self.rank == 1:
            raise ValueError("rank 1 has no opinion")
        return {"0.weight": (epoch + self.rank) % 2, "2.weight": 1 - self.rank}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": list(self.seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = list(state["seen"])


def levels(rank: int) -> dict[str, Any]:
    model = wrap(network())
    controller = Scripted(rank)
    handle = attach(model, [PowerSGD(3), PowerSGD(1)], controller)
    descent = optimiser(model)
    decided = []
    for epoch, batch in enumerate(batches(rank, 3)):
        decided.append(handle.start_epoch(epoch, 0.1))
        _step(model, descent, batch)
    return {
        "decided": decided,
        "returned": [error_of(lambda epoch=epoch: handle.start_epoch(epoch, 0.1)) for epoch in (3,)],
        "seen": sorted(set(controller.seen)),
        "parameters": parameters(model.module),
        "memory": copied(handle.memory),
    }


class Broken(NoCompression):
    """A compressor that fails on every rank."""

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        raise KernelError("the kernel refused")

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        return Traffic(())


def errors(rank: int) -> dict[str, tuple[str, str] | None]:
    """What goes wrong, by name: the kind of error and its text."""
    model = wrap(network())
    attach(model, NoCompression())
    hooked = wrap(network())
    torch_float16(hooked)
    different = wrap(network())
    complex_ones = torch.nn.Linear(2, 2, dtype=torch.complex64)
    broken = wrap(network())
    attach(broken, Broken())
    still = wrap(network(), static_graph=True)
    attach(still, Broken())
    fresh = wrap(network())
    return {
        "twice": error_of(lambda: attach(model, TopK(0.1))),
        "hooked": error_of(lambda: attach(hooked, TopK(0.1))),
        "unwrapped": error_of(lambda: attach(network(), TopK(0.1))),
        "different": error_of(lambda: attach(different, TopK(0.1 + 0.1 * rank))),
        "different kinds": error_of(lambda: attach(different, TopK(0.1) if rank else Float16())),
        "different buckets": error_of(lambda: attach(wrap(network(), bucket_cap_mb=0.5 + rank), TopK(0.1))),
        "one refuses": error_of(lambda: attach(model if rank == 1 else fresh, TopK(0.1))),
        "no levels": error_of(lambda: attach(different, [])),
        "no controller": error_of(lambda: attach(different, [TopK(0.5), TopK(0.1)])),
        "no compressor": error_of(lambda: attach(different, "top_k")),  # pyright: ignore[reportArgumentType]
        "class": error_of(lambda: attach(different, TopK)),  # pyright: ignore[reportArgumentType]
        "complex": error_of(lambda: attach(wrap(complex_ones), TopK(0.1))),
        "in the exchange": error_of(lambda: loss_of(broken(batches(rank, 1)[0])).backward()),
        "in a static graph": error_of(lambda: loss_of(still(batches(rank, 1)[0])).backward()),
    }


def one_rank(rank: int, ranks: int) -> dict[str, Any]:
    """Each rank on its own: nothing is sent, and training is that of the bare module."""
    alone = [dist.new_group([other]) for other in range(ranks)][rank]
    model = wrap(network(), process_group=alone)
    handle = attach(model, TopK(0.01))
    bare = network()
    for module in (model, bare):
        descent = optimiser(module)
        for batch in batches(rank, STEPS):
            _step(module, descent, batch)
    return {"sent": handle.statistics.sent, "same": same(parameters(model.module), parameters(bare))}


def sharded(rank: int, ranks: int) -> dict[str, Any]:
    """fully_shard with its own reduce-scatter, and with ours."""
    mesh = init_device_mesh("cpu", (ranks,))
    compressors = (None, NoCompression(), Float16(), BFloat16(), TopK(1.0), TopK(0.2), SparseAllReduce(0.2))
    found: dict[str, Any] = {}
    for compressor in (*compressors, RandomK(0.2), HardThreshold(0.0), DeepGradientCompression(0.2, warm_up=2)):
        model = network()
        for layer in (model[0], model[2], model):
            fully_shard(layer, mesh=mesh)
        handle = None if compressor is None else attach(model, compressor)
        descent = optimiser(model)
        for batch in batches(rank, STEPS):
            _step(model, descent, batch)
        whole = {name: whole_tensor(parameter) for name, parameter in model.named_parameters()}
        found[repr(compressor)] = {"parameters": whole, "statistics": handle and handle.statistics}
    refused = network()
    fully_shard(refused, mesh=mesh)
    found["refused"] = error_of(lambda: attach(refused, PowerSGD(2)))
    found["frozen"] = frozen(rank, mesh)
    return found


def frozen(rank: int, mesh: DeviceMesh) -> dict[str, Any]:
    """A layer of the outermost group and a group as a whole get no gradients."""
    model = network()
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    handle = attach(model, TopK(0.5))
    for batch in batches(rank, 3):
        loss_of(model(batch)).backward()
    handle.load_state_dict(handle.state_dict())
    elements = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    kept = {name: quantities["residual"].numel() for name, quantities in handle.memory.items()}
    return {"steps": handle.statistics.steps, "elements": elements, "kept": kept}


def killed(rank: int) -> tuple[str, str] | None:
    """The last rank is killed between two steps; what happens to the others."""
    model = wrap(network(), broadcast_buffers=False)
    attach(model, TopK(0.1))
    descent = optimiser(model)

    def steps() -> None:
        for step, batch in enumerate(batches(rank, STEPS)):
            if step == 3 and rank == dist.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            _step(model, descent, batch)

    return error_of(steps)


def whole_tensor(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert isinstance(parameter, DTensor)
    return parameter.full_tensor().detach()


def error_of(work: Callable[[], object]) -> tuple[str, str] | None:
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _step(model: torch.nn.Module, descent: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    descent.zero_grad()
    loss_of(model(batch)).backward()
    descent.step()


def _momenta(descent: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [state["momentum_buffer"] for state in descent.state.values()]
