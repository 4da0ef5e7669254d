"""Linear layers with int8 weights and dynamically quantised activations, as the operator `taut::int8_linear`."""

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import check_depth, check_inference, check_plain
from taut.kernels._load import _native

_BLOCK = 16  # output channels of a block
_GROUP = 4  # consecutive input features of one channel

_library = torch.library.Library("taut", "DEF")
_library.define("int8_linear(Tensor x, Tensor packed, Tensor scales, Tensor? bias, str activation) -> Tensor")


def pack_int8_linear(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise the weight of a linear layer to int8 per output channel, in the layout of the kernel.

    The layout is the same for every instruction set: blocks of 16 output channels; in each block groups of four
    input features, channel-major, then two groups of 16 int32: the channels' sums, and `in_features` in each place.
    Missing channels and features are zero.

    Args:
        weight: `(out_features, in_features)`, floating point, finite.

    Returns:
        `packed`, `(ceil(out_features / 16), ceil(in_features / 4) + 2, 16, 4)` int8, and `scales`,
        `(out_features,)` float32: a channel's weights are its scale (largest magnitude / 127) times its integers.

    Raises:
        KernelError: `weight` has another shape or dtype, too many input features, or a NaN or infinity.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise KernelError(
            f"weight: has shape {tuple(weight.shape)} and {weight.dtype}",
            expected="(out_features, in_features), floating point",
            fix="pass the weight of a torch.nn.Linear",
        )
    check_depth("weight", weight.shape[1])
    weight = weight.detach().to(device="cpu", dtype=torch.float32)
    if not bool(torch.isfinite(weight).all()):
        raise KernelError("weight: holds NaN or infinity", expected="finite values", fix="check the checkpoint")
    channels, features = weight.shape
    largest = weight.abs().amax(dim=1) if features else weight.new_zeros(channels)
    scales = largest / 127
    # In float64, where the ratio of even the smallest magnitudes is as exact as any.
    ratio = torch.where(scales[:, None] > 0, weight.double() / largest[:, None].double(), 0.0)
    integers = (ratio * 127).round().to(torch.int8)
    blocks, groups = -(-channels // _BLOCK), -(-features // _GROUP)
    padded = integers.new_zeros(blocks * _BLOCK, groups * _GROUP)
    padded[:channels, :features] = integers
    sums = padded.sum(dim=1, dtype=torch.int32).view(blocks, 1, _BLOCK, 1)
    trailer = torch.cat([sums, torch.full_like(sums, features)], dim=1).view(torch.int8)
    values = padded.view(blocks, _BLOCK, groups, _GROUP).transpose(1, 2)
    return torch.cat([values, trailer], dim=1), scales


def int8_linear(
    x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """Compute `activation(x @ weight.T + bias)` with int8 weights and each row of `x` quantised to int8 on the fly.

    A row's scale is its largest magnitude / 127, and values round half to even. A row of zeros gives the bias, and a
    row that holds NaN or infinity gives NaN. Inference only.

    Args:
        x: `(..., in_features)` float32 or bfloat16.
        packed: int8, from `pack_int8_linear`.
        scales: `(out_features,)` float32, from `pack_int8_linear`.
        bias: `(out_features,)` float32.
        activation: `"none"`, `"relu"` or `"gelu"` (the exact one, with erf).

    Returns:
        `(..., out_features)`, of the dtype of `x`. The same bits on every instruction set and thread count.

    Raises:
        KernelError: shapes, dtypes or devices do not fit, or a gradient is asked for.
    """
    given = (x, packed, scales) if bias is None else (x, packed, scales, bias)
    for name, tensor in zip(("x", "packed", "scales", "bias"), given, strict=False):
        check_plain(name, tensor)
    if not isinstance(activation, str):
        raise KernelError(f"activation: is a {type(activation).__name__}", expected="'none', 'relu' or 'gelu'")
    return torch.ops.taut.int8_linear.default(x, packed, scales, bias, activation)


def _run(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    check_inference("int8_linear", x, bias)
    if not x.is_contiguous():
        x = x.contiguous()
    return _native.int8_linear(x, packed, scales, bias, activation, torch.get_num_threads())


def _describe(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], scales.numel()))


_library.impl("int8_linear", _run, "CPU")
torch.library.register_fake("taut::int8_linear", _describe, lib=_library)
