"""Compression in a training script of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from taut.distributed._agreement import agree
from taut.distributed._compressor import Compressor
from taut.distributed._controller import Controller
from taut.distributed._data_parallel import check_data_parallel, register_data_parallel
from taut.distributed._exchange import Exchange
from taut.distributed._handle import Handle
from taut.distributed._peers import time_out
from taut.distributed._process_group import ProcessGroupCommunicator
from taut.errors import ArgumentError, CommunicationError, TautError

_ATTACHED: WeakSet[torch.nn.Module] = WeakSet()


def attach(
    module: torch.nn.Module,
    compressor: Compressor | Sequence[Compressor],
    controller: Controller | None = None,
    *,
    process_group: dist.ProcessGroup | None = None,
) -> Handle:
    """Exchange the gradients of a module through a compressor from now on.

    Every rank calls it, after the module was wrapped and before its first backward pass. With one rank nothing is
    compressed, and training goes on as it was.

    Args:
        module: `DistributedDataParallel`, or a module that `fully_shard` was applied to.
        compressor: one, or several levels with the mildest first.
        controller: chooses the level of each parameter, see `Handle.start_epoch`; without it level 0 stays.
        process_group: the ranks that exchange; those of the module if None. Messages go through a group of their own.

    Returns:
        The handle: statistics, levels, state for checkpoints.

    Raises:
        ArgumentError: the module is of another kind, has a hook already or parameters that are not floating point, the
            compressor does not work on it, or ranks differ in what they were given (both values are in the message).
        CommunicationError: another rank refused, or cannot be reached.
    """
    refusal: TautError | None = None
    levels: tuple[Compressor, ...] = ()
    parameters: dict[str, torch.nn.Parameter] = {}
    try:
        levels = _checked_levels(compressor, controller)
        parameters = _checked_parameters(module, levels)
    except TautError as error:
        refusal = error
    if refusal is not None and not dist.is_initialized():
        raise refusal
    try:
        communicator = ProcessGroupCommunicator(*_own_group(module, process_group))
        agree(_configuration(module, levels, controller, parameters), refusal, communicator)
    except TautError:
        raise
    except RuntimeError as error:
        raise CommunicationError(
            f"attach: the other ranks cannot be reached: {error}", fix="call attach on every rank"
        ) from error
    communicator.sent = 0.0
    _ATTACHED.add(module)
    if isinstance(module, DistributedDataParallel):
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        handle = Handle(Exchange(list(shapes), levels, controller, communicator), shapes)
        register_data_parallel(module, parameters, handle)
    else:
        shapes = _sharded().sharded_names(module)
        handle = Handle(Exchange(list(shapes), levels, controller, communicator), shapes)
        _sharded().register_sharded(module, handle)
    return handle


def _checked_levels(
    compressor: Compressor | Sequence[Compressor], controller: Controller | None
) -> tuple[Compressor, ...]:
    levels = (compressor,) if isinstance(compressor, Compressor) else compressor
    if not isinstance(levels, Sequence) or not all(isinstance(level, Compressor) for level in levels):
        raise ArgumentError(
            "compressor",
            compressor,
            expected="a compressor of taut.distributed, e.g. TopK(0.01), or a sequence of them",
        )
    if not levels or (len(levels) > 1 and controller is None):
        raise ArgumentError(
            "compressor",
            list(levels),
            expected="one compressor, or several levels and a controller that chooses between them",
        )
    return tuple(levels)


def _checked_parameters(module: torch.nn.Module, levels: Sequence[Compressor]) -> dict[str, torch.nn.Parameter]:
    if module in _ATTACHED:
        raise ArgumentError(
            "module",
            type(module).__name__,
            expected="a module that nothing is attached to yet; a hook stays for life",
            fix="change levels through a controller, or wrap the inner module anew",
        )
    if isinstance(module, DistributedDataParallel):
        return check_data_parallel(module)
    if _is_sharded(module):
        return _sharded().check_sharded(module, levels)
    raise ArgumentError(
        "module",
        type(module).__name__,
        expected="a DistributedDataParallel module, or one that fully_shard was applied to",
        fix="attach(DistributedDataParallel(module), ...)",
    )


def _own_group(
    module: torch.nn.Module, process_group: dist.ProcessGroup | None
) -> tuple[dist.ProcessGroup, torch.device]:
    """A new group of the same ranks with the same time-out, and where its small messages lie."""
    if not dist.is_initialized():
        raise ArgumentError(
            "process_group", process_group, expected="initialised ranks", fix="torch.distributed.init_process_group()"
        )
    if process_group is None and isinstance(module, DistributedDataParallel):
        process_group = module.process_group
    if process_group is None and _is_sharded(module):
        process_group = _sharded().shard_group(module)
    shared = process_group or dist.group.WORLD
    backend = dist.get_backend(shared)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    own = dist.new_group(
        dist.get_process_group_ranks(shared),
        timeout=time_out(shared, device),
        backend=backend,
        use_local_synchronization=True,
        group_desc="taut gradient exchange",
    )
    if not isinstance(own, dist.ProcessGroup):
        raise ArgumentError("process_group", process_group, expected="a group that this rank belongs to")
    return own, device


def _is_sharded(module: torch.nn.Module) -> bool:
    # A module is sharded only if the script has imported what shards it.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def _sharded() -> ModuleType:
    """Support of sharded modules, the import of which takes half a second."""
    from taut.distributed import _sharded

    return _sharded


def _configuration(
    module: torch.nn.Module,
    levels: Sequence[Compressor],
    controller: Controller | None,
    parameters: Mapping[str, torch.nn.Parameter],
) -> dict[str, str]:
    described = {
        "compressor": ", ".join(map(repr, levels)),
        "controller": "None" if controller is None else type(controller).__qualname__,
        "number of parameters": str(len(parameters)),
    }
    if isinstance(module, DistributedDataParallel):
        described["bucket_cap_mb"] = f"{module.bucket_bytes_cap / 2**20:g}"
    for name, parameter in parameters.items():
        described[f"parameter {name}"] = f"{parameter.dtype} {tuple(parameter.shape)}"
    return described
