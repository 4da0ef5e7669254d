"""The Triton kernels behind `taut.kernels._triton`; imports triton.

W4A8 on integer tensor cores: a program unpacks a tile of 4-bit codes, multiplies them by their 4-bit scales, which
gives int8 exactly, and multiplies with int8 activations into int32. The same fold as on the CPU, so sums are equal.
"""

# Triton's kernels only look like Python; its types do not describe them.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from taut.kernels._triton_layout import STEP

_HALF = tl.constexpr(STEP // 2)  # input features in the low nibbles of a step
_VECTORS = tl.constexpr(STEP // 32)  # vectors of 16 in them


@triton.jit
def _quantise_rows(x, integers, scales, features, BLOCK: tl.constexpr):
    """One row of x (M, K) to int8, with its scale; the rules of `int8_linear`."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < features
    values = tl.load(x + row * features + column, mask=inside, other=0.0).to(tl.float32)
    magnitudes = values.to(tl.int32, bitcast=True) & 0x7FFFFFFF  # as integers, so that NaN is the largest
    largest = tl.max(magnitudes, axis=0)
    usable = (largest >= 0x0D800000) & (largest < 0x7F800000)  # 2^-100 and infinity
    amax = tl.where(usable, largest, 0x3F800000).to(tl.float32, bitcast=True)
    scale = tl.where(usable, tl.div_rn(amax, 127.0), tl.where(largest >= 0x7F800000, float("nan"), 0.0))
    inverse = tl.where(usable, tl.div_rn(127.0, amax), 0.0)
    # Adding and taking back 1.5 * 2^23 rounds half to even; nothing may fuse the product into the sum.
    rounded = (tl.where(usable, values, 0.0) * inverse + 12582912.0) - 12582912.0
    tl.store(integers + row * features + column, rounded.to(tl.int8), mask=inside)
    tl.store(scales + row, scale)


@triton.jit
def _unpack(packed, column, channels, mask, HIGH: tl.constexpr, BLOCK_N: tl.constexpr):
    """(64, BLOCK_N) int8 weights: the low or the high nibbles of the step that `packed` points to."""
    code_rows = tl.arange(0, _HALF)[:, None] * channels + column[None, :]
    scale_rows = (tl.arange(0, _VECTORS) + _HALF)[:, None] * channels + column[None, :]
    codes = tl.load(packed + code_rows, mask=mask[None, :], other=0x88)
    scales = tl.load(packed + scale_rows, mask=mask[None, :], other=0)
    if HIGH:
        codes = codes >> 4
        scales = scales >> 4
    factors = tl.broadcast_to((scales & 15)[:, None, :], (_VECTORS, 16, BLOCK_N)).reshape(_HALF, BLOCK_N)
    return ((codes & 15).to(tl.int8) - 8) * factors.to(tl.int8)


@triton.jit
def _multiply(
    integers,
    row_scales,
    packed,
    gammas,
    bias,
    y,
    rows,
    channels,
    features,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tile of y (M, N) = activation(integers (M, K) @ weights (K, N) * scales + bias)."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_inside = row < rows
    column_inside = column < channels
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    x = integers + row.to(tl.int64)[:, None] * features
    for step in range(tl.cdiv(features, 2 * _HALF)):
        low = tl.arange(0, _HALF) + step * (2 * _HALF)
        high = low + _HALF
        x_low = tl.load(x + low[None, :], mask=row_inside[:, None] & (low < features)[None, :], other=0)
        x_high = tl.load(x + high[None, :], mask=row_inside[:, None] & (high < features)[None, :], other=0)
        sums = tl.dot(x_low, _unpack(packed, column, channels, column_inside, False, BLOCK_N), sums)
        sums = tl.dot(x_high, _unpack(packed, column, channels, column_inside, True, BLOCK_N), sums)
        packed += (_HALF + _VECTORS) * channels
    row_scale = tl.load(row_scales + row, mask=row_inside, other=0.0)
    gamma = tl.load(gammas + column, mask=column_inside, other=0.0)
    offset = tl.zeros((BLOCK_N,), dtype=tl.float32)
    if HAS_BIAS:
        offset = tl.load(bias + column, mask=column_inside, other=0.0)
    value = tl.fma(sums.to(tl.float32), row_scale[:, None] * gamma[None, :], offset[None, :])
    if ACTIVATION == "relu":
        value = tl.where(value < 0.0, 0.0, value)
    if ACTIVATION == "gelu":
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    places = row.to(tl.int64)[:, None] * channels + column[None, :]
    tl.store(y + places, value.to(y.dtype.element_ty), mask=row_inside[:, None] & column_inside[None, :])


def interpreting() -> bool:
    """Whether triton runs its kernels in Python on the CPU (TRITON_INTERPRET=1 when this module was imported)."""
    return not isinstance(_multiply, triton.runtime.jit.JITFunction)


def launch(x: Tensor, packed: Tensor, gammas: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Run both kernels on checked arguments: x (M, K) and the rest as `triton_vector_linear` takes them."""
    rows, features = x.shape
    channels = gammas.numel()
    y = x.new_empty(rows, channels)
    if y.numel() == 0:
        return y
    integers = torch.empty(rows, features, dtype=torch.int8, device=x.device)
    row_scales = torch.empty(rows, dtype=torch.float32, device=x.device)
    # Without fusion of products and sums, which would round differently from the CPU.
    _quantise_rows[(rows,)](  # pyright: ignore[reportIndexIssue]
        x, integers, row_scales, features, BLOCK=triton.next_power_of_2(max(features, 16)), enable_fp_fusion=False
    )
    block_m = min(max(triton.next_power_of_2(rows), 16), 128)
    block_n = 64
    grid = (triton.cdiv(rows, block_m), triton.cdiv(channels, block_n))
    _multiply[grid](  # pyright: ignore[reportIndexIssue]
        integers,
        row_scales,
        packed,
        gammas,
        gammas if bias is None else bias,
        y,
        rows,
        channels,
        features,
        HAS_BIAS=bias is not None,
        ACTIVATION=activation,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        enable_fp_fusion=False,
    )
    return y
