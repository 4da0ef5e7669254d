"""Layers on integers: the arithmetic of taut's kernels in ONNX's operations, on the same integers.

Activations are quantised by the same float32 operations, rounding half to even, and the products are summed in int32,
so that the sums are equal. What follows differs in rounding only: two scales are multiplied one after the other, and
the bias is added, where the kernels use one product and a fused multiply-add.
Both operands are written as uint8 with zero point 128, which onnxruntime multiplies exactly on every processor; its
mixed products of uint8 and int8 saturate on x86 without VNNI. Weights of 4 bits stay so in the file, as codes and
scales; the runtime folds the operations that expand them when it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taut.export._activations import quantise_in_vectors, quantise_whole
from taut.export._elementwise import activate
from taut.export._packed import Weight, unpack_int8, unpack_vector_convolution, unpack_vector_linear
from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Operand, Writer

_ZERO_POINT = 128
_FLOAT = torch.float32


@converts("taut.int8_linear.default")
def _int8_linear(w: Writer, x: Value, packed: Value, scales: Value, bias: Value | None, activation: str) -> str:
    weight = unpack_int8(_constant(w, packed), _channels(w, scales))
    integers, row_scale = quantise_whole(w, w.cast(x, _FLOAT), [-1], 127)
    sums = _multiply(w, integers, _folded(w, packed, weight, (1, 0)))
    return _finish(w, sums, row_scale, scales, bias, activation)


@converts("taut.vector_linear.default")
def _vector_linear(
    w: Writer, x: Value, packed: Value, gammas: Value, bias: Value | None, activation: str, inputs: str
) -> str:
    weight = unpack_vector_linear(_constant(w, packed), _channels(w, gammas))
    source = w.cast(x, _FLOAT)
    if inputs == "vsq4":
        integers, row_scale = quantise_in_vectors(w, source, x, vector=16, highest=7, highest_scale=15)
    else:
        integers, row_scale = quantise_whole(w, source, [-1], 127)
    return _finish(w, _multiply(w, integers, _folded(w, packed, weight, (1, 0))), row_scale, gammas, bias, activation)


@converts("taut.int8_convolution.default")
def _int8_convolution(
    w: Writer, x: Value, packed: Value, scales: Value, bias: Value | None, kernel: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], activation: str,
) -> str:  # fmt: skip
    weight = unpack_int8(_constant(w, packed), _channels(w, scales), kernel[0] * kernel[1])
    return _convolve(w, x, packed, weight, scales, bias, kernel, stride, padding, dilation, activation)


@converts("taut.vector_convolution.default")
def _vector_convolution(
    w: Writer, x: Value, packed: Value, gammas: Value, bias: Value | None, kernel: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], activation: str,
) -> str:  # fmt: skip
    weight = unpack_vector_convolution(_constant(w, packed), _channels(w, gammas), kernel[0] * kernel[1])
    return _convolve(w, x, packed, weight, gammas, bias, kernel, stride, padding, dilation, activation)


def _convolve(
    w: Writer, x: Value, packed: Value, weight: Weight, scales: Value, bias: Value | None, kernel: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], activation: str,
) -> str:  # fmt: skip
    integers, image_scale = quantise_whole(w, w.cast(x, _FLOAT), [1, 2, 3], 127)
    channels, _, features = weight.codes.shape
    # (channels, taps, features) -> (channels, features, taps) -> (channels, features, height, width)
    expanded = w.emit("Reshape", _folded(w, packed, weight, (0, 2, 1)), w.integers([channels, features, *kernel]))
    zero = w.number(_ZERO_POINT, torch.uint8)
    sums = w.emit(
        "ConvInteger",
        _as_unsigned(w, integers),
        expanded,
        zero,
        zero,
        kernel_shape=list(kernel),
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
    )
    shape = w.integers([channels, 1, 1])
    shift = None if bias is None else w.emit("Reshape", bias, shape)
    return _finish(w, sums, image_scale, w.emit("Reshape", scales, shape), shift, activation)


def _constant(w: Writer, packed: Value) -> torch.Tensor:
    if packed.tensor is None:
        unsupported(w.node, "its weight is computed", fix="use a weight that is a constant of the model")
    return packed.tensor


def _channels(w: Writer, scales: Value) -> int:
    return _constant(w, scales).numel()


def _as_unsigned(w: Writer, integers: Operand) -> str:
    """Whole float32 numbers from -128 to 127 as uint8, 128 higher."""
    return w.cast(w.emit("Add", integers, w.number(float(_ZERO_POINT), _FLOAT)), torch.uint8)


def _folded(w: Writer, packed: Value, weight: Weight, order: Sequence[int]) -> str:
    """Codes times scales as uint8, 128 higher, with the dimensions in another order; written once for a weight.

    A linear layer's weight, which has one tap, counts as `(channels, features)`.
    """
    (name,) = w.once(("folded", id(packed.tensor)), lambda: (_fold(w, weight, order),))
    return name


def _fold(w: Writer, weight: Weight, order: Sequence[int]) -> str:
    codes = weight.codes.squeeze(1) if len(order) == 2 else weight.codes
    if weight.scales is None:
        return w.initialiser((codes.to(torch.int16) + _ZERO_POINT).to(torch.uint8).permute(*order).contiguous())
    channels, taps, features = weight.codes.shape
    vectors = weight.scales.shape[2]
    padded = torch.nn.functional.pad(weight.codes, (0, vectors * 16 - features)).view(channels, taps, vectors, 16)
    expanded = w.emit("Cast", w.nibbles(padded), to=1)
    products = w.emit("Mul", expanded, w.emit("Cast", w.nibbles(weight.scales.unsqueeze(3)), to=1))
    flat = w.emit("Reshape", products, w.integers([*codes.shape[:-1], -1]))
    if vectors * 16 != features:
        flat = w.emit("Slice", flat, w.integers([0]), w.integers([features]), w.integers([codes.dim() - 1]))
    return _as_unsigned(w, w.emit("Transpose", flat, perm=list(order)))


def _multiply(w: Writer, integers: str, weight: str) -> str:
    """Sums in int32."""
    zero = w.number(_ZERO_POINT, torch.uint8)
    return w.emit("MatMulInteger", _as_unsigned(w, integers), weight, zero, zero)


def _finish(w: Writer, sums: str, row_scale: str, scales: Operand, bias: Operand, activation: str) -> str:
    """Scales, bias and activation, in float32; then the element type of the result."""
    # Not the sums times the product of both scales: onnxruntime fuses that into an operation that takes the scale of
    # the first row for all.
    # The weight's scale comes first, since rows are the ones that may be huge.
    result = w.emit("Mul", w.emit("Mul", w.cast(sums, _FLOAT), scales), row_scale)
    if bias is not None:
        result = w.emit("Add", result, bias)
    return w.cast(activate(w, activation, result), w.dtype(), of=_FLOAT)
