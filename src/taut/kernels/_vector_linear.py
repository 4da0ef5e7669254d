"""Linear layers with 4-bit weights under two levels of scales, as the operator `taut::vector_linear`."""

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import VECTOR, check_inference, check_plain, check_vector_weights
from taut.kernels._load import _native

_BLOCK = 16  # output channels of a block
_SPAN = 8  # vectors that share a line of scales

_library = torch.library.Library("taut", "FRAGMENT")
_library.define(
    "vector_linear(Tensor x, Tensor packed, Tensor gammas, Tensor? bias, str activation, str inputs) -> Tensor"
)


def pack_vector_linear(codes: Tensor, scales: Tensor, gammas: Tensor) -> Tensor:
    """Lay out the 4-bit weights of a linear layer as the kernel reads them.

    A weight is its code times the integer scale of its vector of 16 input features times the gamma of its output
    channel (format `vsq4-v16-s4`). The layout is the same for every instruction set: blocks of 16 output channels,
    each of spans of eight vectors; a span is a line of 64 bytes with the scales, then two lines of codes for each
    vector, two codes + 8 a byte; `native/vector_linear/vector_linear.h` gives the place of each. A block ends with two
    groups of 16 int32: the channels' sums of code times scale, and `in_features` in each place. Vectors are padded to
    an even number, and missing features and channels have scale 0.

    Args:
        codes: `(out_features, in_features)` int8, -7 to 7.
        scales: `(out_features, ceil(in_features / 16))` uint8, 0 to 15.
        gammas: `(out_features,)` float32; not stored, but checked with the rest.

    Returns:
        `(ceil(out_features / 16), bytes of a block)` int8.

    Raises:
        KernelError: a shape, dtype or value does not fit, or there are too many input features.

    Source: Dai et al., "VS-Quant" (MLSys 2021), section 4, for the format.
    """
    for name, tensor in (("codes", codes), ("scales", scales), ("gammas", gammas)):
        check_plain(name, tensor)
    check_vector_weights(codes, scales, gammas, ("out_features", "in_features"))
    channels, features = codes.shape
    blocks = -(-channels // _BLOCK)
    vectors = -(-features // (2 * VECTOR)) * 2
    spans = -(-vectors // _SPAN)

    padded_codes = torch.zeros(blocks * _BLOCK, vectors * VECTOR, dtype=torch.int8)
    padded_codes[:channels, :features] = codes
    padded_scales = torch.zeros(blocks * _BLOCK, spans * _SPAN, dtype=torch.uint8)
    padded_scales[:channels, : scales.shape[1]] = scales

    # (block, channel, vector, line, half, k) -> (block, vector, line, channel, k), a byte for both halves
    parts = (padded_codes + 8).to(torch.uint8).view(blocks, _BLOCK, vectors, 2, 2, 4).permute(0, 2, 3, 4, 1, 5)
    lines = (parts[:, :, :, 0] | parts[:, :, :, 1] << 4).reshape(blocks, vectors, 2 * 64)
    # (block, channel, span, pair, half) -> (block, span, channel, pair)
    pairs = padded_scales.view(blocks, _BLOCK, spans, _SPAN // 2, 2).transpose(1, 2)
    scale_lines = (pairs[..., 0] | pairs[..., 1] << 4).reshape(blocks, spans, 64)

    pieces = []
    for span in range(spans):
        pieces += [scale_lines[:, span], lines[:, span * _SPAN : (span + 1) * _SPAN].flatten(1)]
    folded = padded_codes.view(blocks, _BLOCK, vectors, VECTOR)
    folded = folded * padded_scales.view(torch.int8).view(blocks, _BLOCK, spans * _SPAN)[:, :, :vectors, None]
    sums = folded.sum(dim=(2, 3), dtype=torch.int32)
    trailer = torch.cat([sums, torch.full_like(sums, features)], dim=1).contiguous().view(torch.uint8)
    return torch.cat([*pieces, trailer], dim=1).view(torch.int8)


def vector_linear(
    x: Tensor,
    packed: Tensor,
    gammas: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
    inputs: str = "int8",
) -> Tensor:
    """Compute `activation(x @ weight.T + bias)` with 4-bit weights and `x` quantised on the fly.

    With inputs `"int8"` each row of `x` becomes int8 under one scale, as in `int8_linear`. With `"vsq4"` it becomes
    4-bit codes with a 4-bit integer scale for each 16 features and one float32 gamma a row. Gamma is the largest
    magnitude / 105. A vector's scale is its own largest magnitude / 7 gamma, rounded up, or one less where that gives
    the smaller squared error: the chooser `closest` of `taut.numerics`, bit for bit. Codes round half to even, -7 to 7.
    Integer products are exact. A row of zeros gives the bias, and a row that holds NaN or infinity gives NaN. Inference
    only.

    Args:
        x: `(..., in_features)` float32 or bfloat16.
        packed: int8, from `pack_vector_linear`.
        gammas: `(out_features,)` float32, of the weight.
        bias: `(out_features,)` float32.
        activation: `"none"`, `"relu"` or `"gelu"` (the exact one, with erf).
        inputs: `"int8"` (W4A8) or `"vsq4"` (W4A4).

    Returns:
        `(..., out_features)`, of the dtype of `x`. The same bits on every instruction set and thread count.

    Raises:
        KernelError: shapes, dtypes or devices do not fit, or a gradient is asked for.

    Source: Dai et al., "VS-Quant" (MLSys 2021), section 4; gamma per row and the choice of scales are ours.
    """
    given = (x, packed, gammas) if bias is None else (x, packed, gammas, bias)
    for name, tensor in zip(("x", "packed", "gammas", "bias"), given, strict=False):
        check_plain(name, tensor)
    for name, text, expected in (
        ("activation", activation, "'none', 'relu' or 'gelu'"),
        ("inputs", inputs, "'int8' or 'vsq4'"),
    ):
        if not isinstance(text, str):
            raise KernelError(f"{name}: is a {type(text).__name__}", expected=expected, fix=f"pass {expected}")
    return torch.ops.taut.vector_linear.default(x, packed, gammas, bias, activation, inputs)


def _run(x: Tensor, packed: Tensor, gammas: Tensor, bias: Tensor | None, activation: str, inputs: str) -> Tensor:
    check_inference("vector_linear", x, bias)
    if not x.is_contiguous():
        x = x.contiguous()
    return _native.vector_linear(x, packed, gammas, bias, activation, inputs, torch.get_num_threads())


def _describe(x: Tensor, packed: Tensor, gammas: Tensor, bias: Tensor | None, activation: str, inputs: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], gammas.numel()))


_library.impl("vector_linear", _run, "CPU")
torch.library.register_fake("taut::vector_linear", _describe, lib=_library)
