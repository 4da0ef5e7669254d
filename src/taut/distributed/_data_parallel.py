"""The one hook of a DistributedDataParallel module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.parallel import DistributedDataParallel

from taut.distributed._compressor import FLOATS, Gradient
from taut.distributed._handle import Handle, wait
from taut.distributed._ordered import Job
from taut.errors import ArgumentError

MOST_ELEMENTS = 2**31 - 1
"""That the int32 indices of sparse messages count."""


def check_data_parallel(module: DistributedDataParallel) -> dict[str, torch.nn.Parameter]:
    """The parameters that gradients are exchanged of, by their names in the inner module.

    Raises:
        ArgumentError: the module has a hook already, or a parameter is not floating point or too large.
    """
    if module._comm_hooks:
        raise ArgumentError(
            "module",
            type(module).__name__,
            expected="a module without communication hook; torch allows one for life",
            fix="remove register_comm_hook from the script",
        )
    named = dict(module.module.named_parameters())
    check_parameters(named)
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def check_parameters(named: Mapping[str, torch.nn.Parameter]) -> None:
    """Refuse parameters that cannot be compressed.

    Raises:
        ArgumentError: one is not floating point, or has more elements than an int32 counts.
    """
    for name, parameter in named.items():
        if parameter.requires_grad and parameter.dtype not in FLOATS:
            raise ArgumentError(f"parameter {name}", parameter.dtype, expected="float32, float64, float16 or bfloat16")
        if parameter.numel() > MOST_ELEMENTS:
            raise ArgumentError(f"parameter {name}", tuple(parameter.shape), expected="fewer than 2^31 elements")


def register_data_parallel(
    module: DistributedDataParallel, parameters: Mapping[str, torch.nn.Parameter], handle: Handle
) -> None:
    """Send every bucket of a module through the exchange of a handle."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    module.register_comm_hook(_Hook(handle, names), _run)


class _Hook:
    """Turns buckets into jobs of the ordered thread."""

    def __init__(self, handle: Handle, names: Mapping[int, str]) -> None:
        self._handle = handle
        self._names = names

    def submit(self, bucket, future: torch.futures.Future[torch.Tensor]) -> Job:
        """Exchange a bucket in its turn; completes the future in any case, or torch would wait for ever."""
        buffer = bucket.buffer()
        pieces = buffer.split([parameter.numel() for parameter in bucket.parameters()])
        # A view of the parameter's shape in the order of memory: for channels_last weights it permutes columns only.
        gradients = [
            Gradient(self._names[id(parameter)], piece.view(parameter.shape))
            for parameter, piece in zip(bucket.parameters(), pieces, strict=True)
        ]
        exchange = self._handle.exchange
        last = bucket.is_last()

        def work() -> None:
            exchange(gradients)
            exchange.steps += last

        return self._handle.submit(work, buffer.device, lambda: future.set_result(buffer))


# torch compares annotations with its own classes, and these are text here: so there are none.
def _run(state, bucket):
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    job = state.submit(bucket, future)
    try:
        # Errors keep their type when they are raised at the end of the backward pass; from the future they would not.
        torch.autograd.Variable._execution_engine.queue_callback(lambda: wait(job))
    except RuntimeError:
        wait(job)  # no backward pass: torch's Join context stands in for a rank that has run out of data
    return future
