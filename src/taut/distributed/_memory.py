"""What compressors keep from step to step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from taut.distributed._compressor import Gradient, Memory

RESIDUAL = "residual"
VELOCITY = "velocity"
STEP = "step"

OF_EACH_RANK = frozenset({RESIDUAL, VELOCITY})
"""The quantities that differ between ranks; all others are equal on them."""


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What gradients of a dtype are added up in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def residual_of(gradient: Gradient, memory: Memory, quantity: str = RESIDUAL) -> torch.Tensor:
    """The residual of a parameter, (elements,), float32 or float64; zeros at first and after a change of shape."""
    kept = memory.setdefault(gradient.name, {})
    dtype = working_dtype(gradient.tensor.dtype)
    found = kept.get(quantity)
    if found is None or found.shape != gradient.tensor.shape or found.dtype != dtype:
        found = torch.zeros(gradient.tensor.shape, dtype=dtype, device=gradient.tensor.device)
    kept[quantity] = found = found.to(gradient.tensor.device)  # a checkpoint may have been read on another one
    return found.view(-1)


def forget_not_finite(gradient: Gradient, memory: Memory) -> None:
    """Clear what is not finite in what this rank keeps of a parameter."""
    kept = memory[gradient.name]
    for quantity in OF_EACH_RANK & set(kept):
        kept[quantity].masked_fill_(~kept[quantity].isfinite(), 0)


def next_step(name: str, memory: Memory) -> int:
    """How often a parameter was exchanged before; counts this time."""
    count = memory.setdefault(name, {}).setdefault(STEP, torch.zeros((), dtype=torch.int64))
    step = int(count)
    count += 1
    return step


def is_zero(tensor: torch.Tensor) -> bool:
    """Whether there is nothing in a gradient, (elements,); NaN counts as something."""
    # Almost always the first entry decides.
    return not tensor.numel() or (not bool(tensor[0]) and not bool(tensor.any()))


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """One flat tensor over contiguous ones that lie one behind the other in one storage, as in a bucket; else None."""
    first = tensors[0]
    end = first.storage_offset()
    for tensor in tensors:
        if (
            tensor.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or tensor.storage_offset() != end
            or tensor.dtype != first.dtype
        ):
            return None
        end += tensor.numel()
    return first.as_strided((end - first.storage_offset(),), (1,))


def generator(device: torch.device, *key: object) -> torch.Generator:
    """Random numbers that depend on nothing but a key."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
