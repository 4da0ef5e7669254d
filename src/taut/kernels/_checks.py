"""What every kernel refuses before it is called."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._load import _native

MAX_IN_FEATURES: int = _native.max_depth
"""The largest number of input features; beyond it 32-bit sums could overflow."""

VECTOR = 16
"""Input features under one scale of the 4-bit kernels."""

MOST_ELEMENTS = 2**31 - 1
"""Of a tensor that int32 indices point into."""

_LARGEST_CODE, _LARGEST_SCALE = 7, 15
_GROUP = 4  # input features are padded to so many
_DEVICES = ("cpu", "meta")


def check_plain(name: str, value: object) -> None:
    """Refuse what is not a dense tensor in memory that the kernels can read."""
    if not _is_plain(value):
        raise KernelError(
            f"{name}: is a {_describe_kind(value)}",
            expected="a dense tensor in CPU memory",
            fix=f"pass {name}.cpu(), and {name}.to_dense() if it is sparse",
        )


def check_length(length: int) -> None:
    """Refuse a number of elements that int32 indices cannot point into."""
    if not isinstance(length, int) or not 0 <= length <= MOST_ELEMENTS:
        raise KernelError(f"length: got {length!r}", expected=f"an integer from 0 to {MOST_ELEMENTS}")


def check_inference(operator: str, x: Tensor, bias: Tensor | None) -> None:
    """Refuse to compute what a gradient is asked for."""
    if (x.requires_grad or (bias is not None and bias.requires_grad)) and torch.is_grad_enabled():
        raise KernelError(
            f"{operator}: an input requires a gradient",
            expected="inference: quantised layers have no derivative",
            fix="call it under torch.no_grad() or torch.inference_mode()",
        )


def _is_plain(value: object) -> bool:
    """Whether a value is a dense tensor in memory that the kernel can read."""
    if not isinstance(value, Tensor) or value.is_quantized or value.is_nested:
        return False
    return value.layout == torch.strided and value.device.type in _DEVICES


def _describe_kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{'nested' if value.is_nested else value.dtype} {value.layout} tensor on {value.device}"


def check_depth(name: str, depth: int) -> None:
    """Refuse sums of more products than 32 bits can hold."""
    if depth > MAX_IN_FEATURES:
        raise KernelError(
            f"{name}: an output is the sum of {depth} products, of so many input features",
            expected=f"at most {MAX_IN_FEATURES}, so that 32-bit sums cannot overflow",
            fix="keep this layer in float32",
        )


def check_vector_weights(codes: Tensor, scales: Tensor, gammas: Tensor, dimensions: tuple[str, ...]) -> None:
    """Refuse parts of a 4-bit weight that do not belong together.

    Args:
        codes: int8, -7 to 7, in vectors along the last dimension.
        scales: uint8, 0 to 15, one a vector.
        gammas: float32, finite, one for each entry of the first dimension.
        dimensions: names of those of `codes`.
    """
    fix = "pass the codes, scale codes and gammas of one weight encoded as vsq4-v16-s4"
    is_empty = len(dimensions) > 2 and 0 in codes.shape[1:]  # a convolution without taps or channels
    if codes.dim() != len(dimensions) or codes.dtype != torch.int8 or is_empty:
        raise KernelError(
            f"codes: has shape {tuple(codes.shape)} and {codes.dtype}",
            expected=f"({', '.join(dimensions)}), torch.int8",
            fix=fix,
        )
    check_depth("codes", math.prod(codes.shape[1:-1]) * -(-codes.shape[-1] // _GROUP) * _GROUP)
    for name, tensor, shape, dtype in (
        ("scales", scales, (*codes.shape[:-1], -(-codes.shape[-1] // VECTOR)), torch.uint8),
        ("gammas", gammas, (codes.shape[0],), torch.float32),
    ):
        if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != codes.device:
            raise KernelError(
                f"{name}: has shape {tuple(tensor.shape)} and {tensor.dtype} on {tensor.device}",
                expected=f"shape {shape}, {dtype} on {codes.device}",
                fix=fix,
            )
    if codes.numel() and not -_LARGEST_CODE <= int(codes.amin()) <= int(codes.amax()) <= _LARGEST_CODE:
        raise KernelError(
            f"codes: a value is out of range: they go from {int(codes.amin())} to {int(codes.amax())}",
            expected=f"-{_LARGEST_CODE} to {_LARGEST_CODE}",
            fix=fix,
        )
    if scales.numel() and int(scales.amax()) > _LARGEST_SCALE:
        raise KernelError(
            f"scales: a value is out of range: the largest is {int(scales.amax())}",
            expected=f"0 to {_LARGEST_SCALE}",
            fix=fix,
        )
    if not bool(torch.isfinite(gammas).all()):
        raise KernelError("gammas: holds NaN or infinity", expected="finite values", fix="check the checkpoint")
