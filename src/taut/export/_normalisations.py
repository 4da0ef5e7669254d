"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Operand, Writer


def _or_constant(w: Writer, value: Value | None, shape: Sequence[int], fill: float, dtype: torch.dtype) -> Operand:
    return value if value is not None else w.initialiser(torch.full(tuple(shape), fill, dtype=dtype))


@converts("layer_norm")
def _layer_norm(
    w: Writer, x: Value, shape: Sequence[Any], weight: Value | None, bias: Value | None, epsilon: float, *rest: object
) -> str:
    if weight is not None and weight.dtype != x.dtype:  # a mixed-precision graph: ONNX has one element type here
        parts = [None if part is None else w.cast(part, torch.float32) for part in (x, weight, bias)]
        result = w.emit("LayerNormalization", *parts, axis=-len(shape), epsilon=epsilon)
        return w.cast(result, w.dtype(), of=torch.float32)
    scale: Operand = weight
    if weight is None:
        if not all(isinstance(size, int) for size in shape):
            unsupported(w.node, "it normalises a dimension whose size depends on the input")
        scale = _or_constant(w, None, shape, 1.0, x.dtype)
    return w.emit("LayerNormalization", x, scale, bias, axis=-len(shape), epsilon=epsilon)


@converts("batch_norm")
def _batch_norm(
    w: Writer, x: Value, weight: Value | None, bias: Value | None, mean: Value | None, variance: Value | None,
    training: bool, momentum: float, epsilon: float, *rest: object,
) -> str:  # fmt: skip
    if training or mean is None or variance is None:
        unsupported(w.node, "it normalises by the statistics of the batch", fix="capture it in evaluation mode")
    channels = [int(size) for size in mean.shape]  # pyright: ignore[reportArgumentType]
    scale = _or_constant(w, weight, channels, 1.0, mean.dtype)
    shift = _or_constant(w, bias, channels, 0.0, mean.dtype)
    return w.emit("BatchNormalization", x, scale, shift, mean, variance, epsilon=epsilon)


@converts("group_norm")
def _group_norm(
    w: Writer, x: Value, groups: int, weight: Value | None, bias: Value | None, epsilon: float, *rest: object
) -> str:
    channels = x.shape[1]
    if not isinstance(channels, int):
        unsupported(w.node, "the number of channels depends on the input")
    scale = _or_constant(w, weight, [channels], 1.0, x.dtype)
    shift = _or_constant(w, bias, [channels], 0.0, x.dtype)
    return w.emit("GroupNormalization", x, scale, shift, num_groups=groups, epsilon=epsilon)


@converts("instance_norm")
def _instance_norm(
    w: Writer, x: Value, weight: Value | None, bias: Value | None, mean: object, variance: object,
    from_input: bool, momentum: float, epsilon: float, *rest: object,
) -> str:  # fmt: skip
    channels = x.shape[1]
    if not from_input or not isinstance(channels, int):
        unsupported(w.node, "it uses running statistics, or its number of channels depends on the input")
    scale = _or_constant(w, weight, [channels], 1.0, x.dtype)
    shift = _or_constant(w, bias, [channels], 0.0, x.dtype)
    return w.emit("InstanceNormalization", x, scale, shift, epsilon=epsilon)


@converts("rms_norm")
def _rms_norm(w: Writer, x: Value, shape: Sequence[Any], weight: Value | None, epsilon: float | None) -> str:
    axes = w.integers(range(x.rank - len(shape), x.rank))
    floor = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    mean = w.emit("ReduceMean", w.emit("Mul", x, x), axes, keepdims=1)
    result = w.emit("Div", x, w.emit("Sqrt", w.emit("Add", mean, w.number(floor, x.dtype))))
    return result if weight is None else w.emit("Mul", result, weight)
