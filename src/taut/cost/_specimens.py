"""The calls that a calibration times: for each family of operators a small one and a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from taut.kernels import pack_int8_linear

_FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Specimen: TypeAlias = tuple[float, Callable[[], object]]
"""The work of a call (operations for products, elements otherwise) and the call."""


def specimens(bf16: bool) -> dict[str, tuple[Specimen, Specimen]]:
    """For each family a small and a large call; two points give the overhead of a call and the rate."""
    made: dict[str, tuple[Specimen, Specimen]] = {}
    for number in ("fp32", "bf16") if bf16 else ("fp32",):
        kind = _FORMATS[number]
        made[f"linear.{number}"] = (_linear(16, 256, kind), _linear(128, 768, kind))
        made[f"convolution.{number}"] = (_convolution(16, 32, 1, kind), _convolution(64, 56, 1, kind))
        made[f"strided_linear.{number}"] = (_strided_linear(8, 128, kind), _strided_linear(32, 384, kind))
        last = torch.channels_last
        made[f"convolution_channels_last.{number}"] = (
            _convolution(16, 32, 1, kind, last),
            _convolution(64, 56, 1, kind, last),
        )
        if torch.backends.mkldnn.is_available():
            made[f"packed_linear.{number}"] = (_packed_linear(16, 256, kind), _packed_linear(128, 768, kind))
            made[f"packed_convolution.{number}"] = (
                _packed_convolution(16, 32, kind),
                _packed_convolution(64, 56, kind),
            )
        made[f"depthwise.{number}"] = (_convolution(32, 16, 32, kind), _convolution(96, 56, 96, kind))
        made[f"attention.{number}"] = (_attention(4, 32, kind), _attention(12, 128, kind))
        made[f"transcendental.{number}"] = (_each(functional.gelu, 4096, kind), _each(functional.gelu, 65536, kind))
        made[f"normalisation.{number}"] = (_normalise(16, kind), _normalise(256, kind))
        made[f"batch_normalisation.{number}"] = (_normalise_batch(16, kind), _normalise_batch(64, kind))
        made[f"reduction.{number}"] = (_reduce(8, kind), _reduce(56, kind))
        made[f"pointwise.{number}"] = (_each(torch.neg, 4096, kind), _each(torch.neg, 65536, kind))
        made[f"pooling.{number}"] = (_pool(32, kind), _pool(112, kind))
    made["recurrent.fp32"] = (_recurrent(4, 32), _recurrent(32, 128))
    made["linear.int8"] = (_int8_linear(16, 256), _int8_linear(128, 768))
    return made


def _linear(rows: int, width: int, kind: torch.dtype) -> Specimen:
    x, weight = torch.rand(rows, width).to(kind), torch.rand(width, width).to(kind)
    return 2.0 * rows * width * width, lambda: functional.linear(x, weight)


def _strided_linear(rows: int, width: int, kind: torch.dtype) -> Specimen:
    x = torch.rand(4, rows, width).to(kind).transpose(0, 1)  # a batch of four as an encoder turns it
    weight = torch.rand(width, width).to(kind)
    return 8.0 * rows * width * width, lambda: functional.linear(x, weight, weight[0])


def _int8_linear(rows: int, width: int) -> Specimen:
    x = torch.rand(rows, width)
    packed, scales = pack_int8_linear(torch.rand(width, width) - 0.5)
    operator = torch.ops.taut.int8_linear
    return 2.0 * rows * width * width, lambda: operator(x, packed, scales, None, "none")


def _convolution(
    channels: int, size: int, groups: int, kind: torch.dtype, layout: torch.memory_format = torch.contiguous_format
) -> Specimen:
    x = torch.rand(1, channels, size, size).to(kind).to(memory_format=layout)
    weight = torch.rand(channels, channels // groups, 3, 3).to(kind).to(memory_format=layout)
    work = 2.0 * channels * (channels // groups) * 9 * size * size
    return work, lambda: functional.conv2d(x, weight, padding=1, groups=groups)


def _packed_linear(rows: int, width: int, kind: torch.dtype) -> Specimen:
    x, weight = torch.rand(rows, width).to(kind), torch.rand(width, width).to(kind)
    operator, packed = torch.ops.mkldnn._linear_pointwise.default, torch.ops.mkldnn._reorder_linear_weight(weight)
    return 2.0 * rows * width * width, lambda: operator(x, packed, None, "none", [], "")


def _packed_convolution(channels: int, size: int, kind: torch.dtype) -> Specimen:
    x = torch.rand(1, channels, size, size).to(kind).to(memory_format=torch.channels_last)
    window = ([1, 1], [1, 1], [1, 1], 1)
    weight = torch.rand(channels, channels, 3, 3).to(kind)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *window)
    operator = torch.ops.mkldnn._convolution_pointwise.default
    work = 2.0 * channels * channels * 9 * size * size
    return work, lambda: operator(x, packed, None, *window, "none", [], "")


def _recurrent(steps: int, width: int) -> Specimen:
    layer, x = nn.LSTM(width, width), torch.rand(steps, 1, width)
    return 2.0 * steps * 8 * width * width, lambda: layer(x)


def _attention(heads: int, length: int, kind: torch.dtype) -> Specimen:
    x = torch.rand(1, heads, length, 64).to(kind)
    return 4.0 * heads * length * length * 64, lambda: functional.scaled_dot_product_attention(x, x, x)


def _each(function: Callable[[torch.Tensor], torch.Tensor], elements: int, kind: torch.dtype) -> Specimen:
    x = torch.rand(elements).to(kind)
    return float(elements), lambda: function(x)


def _normalise(rows: int, kind: torch.dtype) -> Specimen:
    x, weight = torch.rand(rows, 256).to(kind), torch.ones(256, dtype=kind)
    return float(x.numel()), lambda: functional.layer_norm(x, (256,), weight, weight)


def _normalise_batch(channels: int, kind: torch.dtype) -> Specimen:
    x, mean, variance = torch.rand(1, channels, 32, 32).to(kind), torch.zeros(channels), torch.ones(channels)
    mean, variance = mean.to(kind), variance.to(kind)
    return float(x.numel()), lambda: functional.batch_norm(x, mean, variance, variance, mean)


def _reduce(size: int, kind: torch.dtype) -> Specimen:
    x = torch.rand(1, 32, size, size).to(kind)
    return float(x.numel()), lambda: x.mean((2, 3))


def _pool(size: int, kind: torch.dtype) -> Specimen:
    x = torch.rand(1, 16, size, size).to(kind)
    return float(x.numel()), lambda: functional.max_pool2d(x, 2)
