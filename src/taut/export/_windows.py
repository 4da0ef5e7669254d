"""Convolution, pooling and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taut.export._elementwise import activate
from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Writer


@converts("conv1d", "conv2d", "conv3d", "conv1d.padding", "conv2d.padding", "conv3d.padding")
def _convolution(
    w: Writer,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> str:
    return convolution(w, x, weight, bias, stride, padding, dilation, groups)


def convolution(
    w: Writer,
    x: Value | str,
    weight: Value | str,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    *,
    op: str = "Conv",
    rank: int | None = None,
) -> str:
    """A convolution of any number of dimensions; `padding` may be "same" or "valid"."""
    spatial = (rank if isinstance(weight, str) else weight.rank) - 2  # pyright: ignore[reportOptionalOperand]
    attributes: dict[str, Any] = {
        "strides": spread(stride, spatial),
        "dilations": spread(dilation, spatial),
        "group": groups,
    }
    if padding == "same" and not isinstance(weight, str):
        kernel = [int(size) for size in weight.shape[2:]]  # pyright: ignore[reportArgumentType]
        total = [d * (k - 1) for d, k in zip(attributes["dilations"], kernel, strict=True)]
        attributes["pads"] = [size // 2 for size in total] + [size - size // 2 for size in total]
    else:
        pads = spread(0 if padding == "valid" else padding, spatial)
        attributes["pads"] = pads + pads
    return w.emit(op, x, weight, bias, **attributes)


def spread(value: Any, count: int) -> list[int]:
    """One number for each dimension."""
    items = [value] if isinstance(value, int) else list(value)
    return [int(item) for item in (items * count if len(items) == 1 else items)]


@converts("convolution")
def _general(
    w: Writer, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> str:  # fmt: skip
    if transposed:
        return _transposed(w, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolution(w, x, weight, bias, stride, padding, dilation, groups)


@converts("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def _transposed(
    w: Writer, x: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> str:  # fmt: skip
    spatial = weight.rank - 2
    pads = spread(padding, spatial)
    return w.emit(
        "ConvTranspose",
        x,
        weight,
        bias,
        strides=spread(stride, spatial),
        pads=pads + pads,
        output_padding=spread(output_padding, spatial),
        dilations=spread(dilation, spatial),
        group=groups,
    )


@converts("mkldnn._convolution_pointwise.default")
def _fused(
    w: Writer, x: Value, weight: Value, bias: Value | None, padding: Any, stride: Any, dilation: Any, groups: int,
    name: str, scalars: Any, algorithm: Any,
) -> str:  # fmt: skip
    return activate(w, name, convolution(w, x, weight, bias, stride, padding, dilation, groups), scalars, algorithm)


@converts("mkldnn._convolution_pointwise.binary")
def _fused_with_sum(
    w: Writer, x: Value, other: Value, weight: Value, bias: Value | None, padding: Any, stride: Any, dilation: Any,
    groups: int, binary: str, alpha: Any, name: str | None, scalars: Any, algorithm: Any,
) -> str:  # fmt: skip
    if binary != "add" or alpha not in (None, 1):
        unsupported(w.node, f"the fused operation {binary!r} with factor {alpha} has no counterpart in ONNX")
    total = w.emit("Add", convolution(w, x, weight, bias, stride, padding, dilation, groups), other)
    return activate(w, name or "none", total, scalars, algorithm)


@converts("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(w: Writer, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> str:
    attributes = _window(w, kernel, stride, padding)
    spatial = len(attributes["kernel_shape"])
    return w.emit("MaxPool", x, **attributes, dilations=spread(dilation, spatial), ceil_mode=int(ceil))


@converts("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _average_pool(
    w: Writer, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool, include: bool, divisor: int | None = None
) -> str:
    if divisor is not None:
        unsupported(w.node, "ONNX's AveragePool has no divisor of its own", fix="leave divisor_override out")
    attributes = _window(w, kernel, stride, padding)
    return w.emit("AveragePool", x, **attributes, ceil_mode=int(ceil), count_include_pad=int(include))


def _window(w: Writer, kernel: Any, stride: Any, padding: Any) -> dict[str, Any]:
    spatial = int(w.node.op.split(".")[1][-2])
    pads = spread(padding, spatial)
    return {
        "kernel_shape": spread(kernel, spatial),
        "strides": spread(stride if stride or isinstance(stride, int) else kernel, spatial),
        "pads": pads + pads,
    }


@converts("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_average_pool(w: Writer, x: Value, sizes: Any) -> str:
    spatial = int(w.node.op.split(".")[1][-2])
    wanted, present = spread(sizes, spatial), x.shape[x.rank - spatial :]
    if x.rank != spatial + 2:
        unsupported(w.node, "ONNX pools batches of images only", fix="give the input a batch dimension")
    if all(size == 1 for size in wanted):
        return w.emit("GlobalAveragePool", x)
    kernel = []
    for size, into in zip(present, wanted, strict=True):
        if not isinstance(size, int) or size % into:
            unsupported(w.node, f"windows from {size} to {into} are of unequal size, which ONNX cannot say")
        kernel.append(size // into)
    return w.emit("AveragePool", x, kernel_shape=kernel, strides=kernel)


@converts("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def _resize_nearest(w: Writer, x: Value, sizes: Any, scales: Any) -> str:
    return _resize(w, x, sizes, scales, mode="nearest", place="asymmetric", nearest_mode="floor")


@converts("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec", "upsample_bicubic2d.vec")
def _resize_smoothly(w: Writer, x: Value, sizes: Any, corners: bool, scales: Any) -> str:
    place = "align_corners" if corners else "half_pixel" if "cubic" in w.node.op else "pytorch_half_pixel"
    if "cubic" in w.node.op:
        return _resize(w, x, sizes, scales, mode="cubic", place=place, cubic_coeff_a=-0.75)
    return _resize(w, x, sizes, scales, mode="linear", place=place)


def _resize(w: Writer, x: Value, sizes: Any, scales: Any, *, mode: str, place: str, **attributes: Any) -> str:
    attributes |= {"mode": mode, "coordinate_transformation_mode": place}
    if sizes is None:
        factors = w.floats([1.0, 1.0, *scales])
        return w.emit("Resize", x, None, factors, **attributes)
    whole = w.emit("Concat", w.emit("Shape", x, start=0, end=2), w.sizes(sizes), axis=0)
    return w.emit("Resize", x, None, None, whole, **attributes)
