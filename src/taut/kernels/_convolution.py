"""Convolutions with int8 or 4-bit weights and images quantised on the fly.

Codes in 4 bits with one 4-bit integer scale for every 16 input channels at a fixed kernel position follow Dai et al.,
"VS-Quant: Per-vector Scaled Quantization for Accurate Low-Precision Neural Network Inference" (MLSys 2021), section 4.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import VECTOR, check_depth, check_inference, check_plain, check_vector_weights
from taut.kernels._int8_linear import pack_int8_linear
from taut.kernels._load import _native

_BLOCK = 16  # output channels of a block
_GROUP = 4  # consecutive input channels of one output channel

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation")

_library = torch.library.Library("taut", "FRAGMENT")
for _name, _scales in (("int8_convolution", "scales"), ("vector_convolution", "gammas")):
    _library.define(
        f"{_name}(Tensor x, Tensor packed, Tensor {_scales}, Tensor? bias, int[] kernel_size, int[] stride, "
        "int[] padding, int[] dilation, str activation) -> Tensor"
    )


def pack_int8_convolution(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise the weight of a 2-d convolution to int8 per output channel, in the layout of the kernel.

    The layout is the same for every instruction set: blocks of 16 output channels; in each, tap by tap, groups of four
    input channels, output channel-major, then two groups of 16 int32: the sums of the output channels' values, and
    `in_channels` in each place. Missing channels are zero.

    Args:
        weight: `(out_channels, in_channels, height, width)`, floating point, finite.

    Returns:
        `packed`, `(ceil(out_channels / 16), height * width * ceil(in_channels / 4) + 2, 16, 4)` int8, and `scales`,
        `(out_channels,)` float32: a channel's weights are its scale (largest magnitude / 127) times its integers.

    Raises:
        KernelError: `weight` has another shape or dtype, too many weights for one output, or a NaN or infinity.
    """
    if weight.dim() != 4 or not weight.is_floating_point() or 0 in weight.shape[1:]:
        raise KernelError(
            f"weight: has shape {tuple(weight.shape)} and {weight.dtype}",
            expected="(out_channels, in_channels, height, width), floating point",
            fix="pass the weight of a torch.nn.Conv2d with groups=1",
        )
    channels, features, height, width = weight.shape
    padded = -(-features // _GROUP) * _GROUP
    check_depth("weight", height * width * padded)
    rows = weight.new_zeros(channels, height * width, padded)
    rows[:, :, :features] = weight.detach().flatten(2).transpose(1, 2)
    packed, scales = pack_int8_linear(rows.flatten(1))
    packed[:, -1] = torch.full((_BLOCK, 1), features, dtype=torch.int32).view(torch.int8)
    return packed, scales


def pack_vector_convolution(codes: Tensor, scales: Tensor, gammas: Tensor) -> Tensor:
    """Pack 4-bit weights of a 2-d convolution, with a scale for each vector of 16 input channels, for the kernel.

    The weight of output channel o, tap t (row-major within the kernel) and input channel i is
    `codes[o, t, i] * scales[o, t, i // 16] * gammas[o]`. Packed weights take 4.25 bits for each, and 128 bytes for
    every 16 output channels. The layout is that of `native/convolution/convolution.h`, the same for every instruction
    set.

    Args:
        codes: `(out_channels, taps, in_channels)` int8, -7 to 7.
        scales: `(out_channels, taps, ceil(in_channels / 16))` uint8, 0 to 15.
        gammas: `(out_channels,)` float32, finite; given to the operator, and only checked here.

    Returns:
        `(ceil(out_channels / 16), taps * ceil(in_channels / 16) * 136 + 128)` int8.

    Raises:
        KernelError: a shape, dtype or value is not as above, or an output has too many weights.
    """
    for name, tensor in (("codes", codes), ("scales", scales), ("gammas", gammas)):
        check_plain(name, tensor)
    check_vector_weights(codes, scales, gammas, ("out_channels", "taps", "in_channels"))
    channels, taps, features = codes.shape
    vectors = scales.shape[2]
    blocks = -(-channels // _BLOCK)
    whole = codes.new_zeros(blocks * _BLOCK, taps, vectors * VECTOR)
    whole[:channels, :, :features] = codes
    factors = scales.new_zeros(blocks * _BLOCK, taps, vectors)
    factors[:channels] = scales
    folded = whole.view(-1, taps, vectors, VECTOR).int() * factors[..., None].int()
    sums = folded.sum(dim=(1, 2, 3), dtype=torch.int32).view(blocks, _BLOCK)
    trailer = torch.cat([sums, torch.full_like(sums, features)], dim=1).view(torch.int8)
    # (blocks, channel, tap, vector, line, low or high nibble, input channel) -> line-wise, output channel-major
    nibbles = (whole + 8).view(torch.uint8).view(blocks, _BLOCK, taps, vectors, 2, 2, _GROUP)
    nibbles = nibbles.permute(0, 2, 3, 4, 5, 1, 6)
    code_bytes = nibbles[:, :, :, :, 0] | nibbles[:, :, :, :, 1] << 4
    factors = factors.view(blocks, 2, _BLOCK // 2, taps, vectors).permute(0, 1, 3, 4, 2)
    scale_bytes = factors[:, 0] | factors[:, 1] << 4
    parts = (code_bytes.flatten(1), scale_bytes.flatten(1))
    return torch.cat([part.view(torch.int8) for part in parts] + [trailer], dim=1)


def int8_convolution(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    activation: str = "none",
) -> Tensor:
    """Compute `activation(conv2d(x, weight) + bias)` with int8 weights and each image quantised to int8 on the fly.

    An image's scale is its largest magnitude / 127, and values round half to even. Padding is exact zero. An image of
    zeros gives the bias, and one that holds NaN or infinity gives NaN. One group; inference only.

    Args:
        x: `(images, in_channels, height, width)` float32 or bfloat16; fastest in `torch.channels_last`.
        packed: int8, from `pack_int8_convolution`.
        scales: `(out_channels,)` float32, from `pack_int8_convolution`.
        bias: `(out_channels,)` float32.
        kernel_size: height and width of the kernel.
        stride: of the output, vertical and horizontal.
        padding: rows above and below, columns left and right.
        dilation: distance of the taps, vertical and horizontal.
        activation: `"none"`, `"relu"` or `"gelu"` (the exact one, with erf).

    Returns:
        `(images, out_channels, out_height, out_width)` of the dtype of `x`, in `torch.channels_last`. The same bits on
        every instruction set and thread count.

    Raises:
        KernelError: shapes, dtypes or devices do not fit, or a gradient is asked for.
    """
    geometry = (kernel_size, stride, padding, dilation)
    _require_plain(x, packed, scales, bias, "scales", geometry, activation)
    return torch.ops.taut.int8_convolution.default(x, packed, scales, bias, *geometry, activation)


def vector_convolution(
    x: Tensor,
    packed: Tensor,
    gammas: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    activation: str = "none",
) -> Tensor:
    """Compute `activation(conv2d(x, weight) + bias)` with 4-bit vector-scaled weights and images quantised to int8.

    As `int8_convolution` but for the weights: `packed` is from `pack_vector_convolution`, and `gammas`,
    `(out_channels,)` float32, are the coarse scales. Sums of integers are exact.

    Raises:
        KernelError: shapes, dtypes or devices do not fit, or a gradient is asked for.
    """
    geometry = (kernel_size, stride, padding, dilation)
    _require_plain(x, packed, gammas, bias, "gammas", geometry, activation)
    return torch.ops.taut.vector_convolution.default(x, packed, gammas, bias, *geometry, activation)


def _require_plain(
    x: object, packed: object, scales: object, bias: object, scales_name: str, geometry: tuple, activation: object
) -> None:
    given = {"x": x, "packed": packed, scales_name: scales} | ({} if bias is None else {"bias": bias})
    for name, tensor in given.items():
        check_plain(name, tensor)
    for name, pair in zip(_GEOMETRY, geometry, strict=True):
        if not isinstance(pair, Sequence) or not all(isinstance(value, int) for value in pair):
            raise KernelError(f"{name}: got {pair!r}", expected="two integers", fix="pass (vertical, horizontal)")
    if not isinstance(activation, str):
        raise KernelError(f"activation: is a {type(activation).__name__}", expected="'none', 'relu' or 'gelu'")


def _require_pairs(*geometry: Sequence[int]) -> None:
    for name, pair in zip(_GEOMETRY, geometry, strict=True):
        if len(pair) != 2:
            raise KernelError(f"{name}: got {list(pair)}", expected="two integers", fix="pass [vertical, horizontal]")


def _require_images(x: Tensor) -> None:
    if x.dim() != 4:
        raise KernelError(
            f"x: has shape {tuple(x.shape)}",
            expected="(images, channels, height, width)",
            fix="add a dimension of 1 for a single image: x[None]",
        )


def _implement(name: str) -> None:
    native = getattr(_native, name)

    def run(
        x: Tensor,
        packed: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        activation: str,
    ) -> Tensor:
        check_inference(name, x, bias)
        if not len(kernel_size) == len(stride) == len(padding) == len(dilation) == 2:  # in 0.1 us
            _require_pairs(kernel_size, stride, padding, dilation)
        if not x.is_contiguous(memory_format=torch.channels_last):
            _require_images(x)
            x = x.contiguous(memory_format=torch.channels_last)
        threads = torch.get_num_threads()
        return native(x, packed, scales, bias, kernel_size, stride, padding, dilation, activation, threads)

    def describe(
        x: Tensor,
        packed: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        activation: str,
    ) -> Tensor:
        _require_images(x)
        _require_pairs(kernel_size, stride, padding, dilation)
        images, _, *size = x.shape
        height, width = (
            (size[i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in range(2)
        )
        return x.new_empty((images, height, width, scales.numel())).permute(0, 3, 1, 2)

    _library.impl(name, run, "CPU")
    torch.library.register_fake(f"taut::{name}", describe, lib=_library)


_implement("int8_convolution")
_implement("vector_convolution")
