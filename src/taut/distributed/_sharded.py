"""The reduce-scatter of modules that `fully_shard` was applied to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_common import FSDPMeshInfo
from torch.distributed.fsdp._fully_shard._fsdp_param import FSDPParam
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

from taut.distributed._compressor import Compressor, Gradient
from taut.distributed._data_parallel import MOST_ELEMENTS, check_parameters
from taut.distributed._handle import Handle, wait
from taut.errors import ArgumentError

_ROOT = "(root)"


def check_sharded(module: torch.nn.Module, levels: Sequence[Compressor]) -> dict[str, torch.nn.Parameter]:
    """The parameters of a sharded module.

    Raises:
        ArgumentError: a compressor needs whole matrices, or a group of parameters is of a kind that is not supported,
            or has more elements than an int32 counts.
    """
    for level in levels:
        if not level.shardable:
            raise ArgumentError(
                "compressor",
                level,
                expected="for a sharded module one that works on flat shards: matrices are cut in the one flat buffer "
                "of several parameters that is exchanged",
                fix="take NoCompression, Float16, BFloat16, TopK or another with shardable = True, "
                "or train with DistributedDataParallel",
            )
    sharers = set()
    for name, group in _groups(module):
        if group is None or not isinstance(group.mesh_info, FSDPMeshInfo):
            raise ArgumentError(f"module {name}", "several meshes or none", expected="one mesh to be sharded over")
        sharers.add(tuple(dist.get_process_group_ranks(group.mesh_info.shard_process_group)))
    if len(sharers) != 1:
        raise ArgumentError("module", sorted(sharers), expected="all of its parameters shared by the same ranks")
    for name, shape in sharded_names(module).items():
        if shape.numel() > MOST_ELEMENTS:
            raise ArgumentError(
                f"module {name}",
                f"{shape.numel()} elements in one group",
                expected="fewer than 2^31 elements in the parameters that travel together",
                fix="apply fully_shard to the layers of this module as well, each of which is a group then",
            )
    named = dict(module.named_parameters())
    check_parameters(named)
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def shard_group(module: torch.nn.Module) -> dist.ProcessGroup | None:
    """The ranks that share the parameters of a sharded module, if it has any."""
    meshes = (group.mesh_info for _, group in _groups(module) if group is not None)
    return next((mesh.shard_process_group for mesh in meshes if isinstance(mesh, FSDPMeshInfo)), None)


def sharded_names(module: torch.nn.Module) -> dict[str, torch.Size]:
    """The flat gradients that a sharded module exchanges: the names of sharded modules and sizes with padding."""
    shapes = {}
    group = shard_group(module)
    ranks = 1 if group is None else group.size()
    for name, group in _groups(module):
        if group is None:
            continue
        elements = sum(_padded(parameter._orig_size, ranks) for parameter in _trained(group))
        shapes[name] = torch.Size([elements])
    return shapes


def register_sharded(module: torch.nn.Module, handle: Handle) -> None:
    """Send every reduce-scatter of a sharded module through the exchange of a handle."""
    named = {name or _ROOT: child for name, child in module.named_modules()}
    names = [name for name, group in _groups(module) if group is not None]
    for place, name in enumerate(names):
        child = named[name]
        assert isinstance(child, FSDPModule)
        # The groups of a backward pass come from the last module to the first.
        child.set_custom_reduce_scatter(_ReduceScatter(handle, name, last=place == 0))


class _ReduceScatter(ReduceScatter):
    """Called once for each group of parameters and backward pass, with what all of them have added up."""

    def __init__(self, handle: Handle, name: str, *, last: bool) -> None:
        self._handle = handle
        self._name = name
        self._last = last

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: dist.ReduceOp | dist.ReduceOp.RedOpType,
        async_op: bool = False,
    ) -> dist.Work | None:
        if op not in (dist.ReduceOp.AVG, dist.ReduceOp.SUM):
            raise ArgumentError(
                "module",
                str(op),
                expected="gradients that are averaged or added up",
                fix="no set_gradient_divide_factor",
            )
        exchange = self._handle.exchange

        def work() -> None:
            output_tensor.copy_(exchange.scatter(Gradient(self._name, input_tensor)))
            if op == dist.ReduceOp.SUM:
                output_tensor.mul_(exchange.communicator.size)
            exchange.steps += self._last

        wait(self._handle.submit(work, input_tensor.device))
        return None


def _groups(module: torch.nn.Module) -> Iterator[tuple[str, FSDPParamGroup | None]]:
    """The group of each sharded module that has parameters of its own to train; None where there are several."""
    for name, child in module.named_modules():
        if isinstance(child, FSDPModule):
            groups = child._get_fsdp_state()._fsdp_param_groups
            if any(_trained(group) for group in groups):
                yield name or _ROOT, groups[0] if len(groups) == 1 else None


def _trained(group: FSDPParamGroup) -> list[FSDPParam]:
    """The parameters of a group that get gradients; only those travel."""
    return [parameter for parameter in group.fsdp_params if parameter.sharded_param.requires_grad]


def _padded(size: torch.Size, ranks: int) -> int:
    return math.ceil(size[0] / ranks) * ranks * math.prod(size[1:])
