"""Weights back from the layouts of taut's kernels, which their `pack_...` functions document."""

from __future__ import annotations

import dataclasses

import torch

from taut.errors import ExportError

_BLOCK, _GROUP, _VECTOR, _SPAN = 16, 4, 16, 8
_LINE = _BLOCK * _GROUP


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """Integers of a layer, output channel first.

    Attributes:
        codes: `(channels, taps, features)` int8; one tap for a linear layer.
        scales: `(channels, taps, vectors)` uint8, one for each 16 features; None without.
    """

    codes: torch.Tensor
    scales: torch.Tensor | None = None


def unpack_int8(packed: torch.Tensor, channels: int, taps: int = 1) -> Weight:
    """From `pack_int8_linear` or `pack_int8_convolution`.

    Raises:
        ExportError: the tensor is no packed weight of so many channels and taps.
    """
    features = _features(packed.flatten(1), channels)
    groups = -(-features // _GROUP)
    _require(packed, (-(-channels // _BLOCK), taps * groups + 2, _BLOCK, _GROUP))
    values = packed[:, :-2].reshape(-1, taps, groups, _BLOCK, _GROUP).permute(0, 3, 1, 2, 4)
    return Weight(values.reshape(-1, taps, groups * _GROUP)[:channels, :, :features])


def unpack_vector_linear(packed: torch.Tensor, channels: int) -> Weight:
    """From `pack_vector_linear`.

    Raises:
        ExportError: the tensor is no packed weight of so many channels.
    """
    features = _features(packed, channels)
    vectors = -(-features // (2 * _VECTOR)) * 2
    spans = -(-vectors // _SPAN)
    blocks = -(-channels // _BLOCK)
    _require(packed, (blocks, spans * _LINE + vectors * 2 * _LINE + 2 * _LINE))
    content = packed.view(torch.uint8)
    codes, scales, start = [], [], 0
    for span in range(spans):
        scales.append(content[:, start : start + _LINE].reshape(blocks, _BLOCK, 1, _SPAN // 2))
        start += _LINE
        count = min(_SPAN, vectors - span * _SPAN)
        codes.append(content[:, start : start + count * 2 * _LINE].reshape(blocks, count, 2, _BLOCK, _GROUP))
        start += count * 2 * _LINE
    factors = _nibbles(torch.cat(scales, 2), 4).reshape(-1, 1, spans * _SPAN)  # a pair of vectors a byte
    lines = _nibbles(torch.cat(codes, 1), 3).permute(0, 4, 1, 2, 3, 5)  # (blocks, channel, vector, line, half, k)
    whole = lines.reshape(-1, 1, vectors * _VECTOR)
    used = -(-features // _VECTOR)
    return Weight((whole[:channels, :, :features] - 8).view(torch.int8), factors[:channels, :, :used])


def unpack_vector_convolution(packed: torch.Tensor, channels: int, taps: int) -> Weight:
    """From `pack_vector_convolution`.

    Raises:
        ExportError: the tensor is no packed weight of so many channels and taps.
    """
    features = _features(packed, channels)
    vectors = -(-features // _VECTOR)
    blocks, count = -(-channels // _BLOCK), taps * vectors
    _require(packed, (blocks, count * (2 * _LINE + _BLOCK // 2) + 2 * _LINE))
    content = packed.view(torch.uint8)
    lines = content[:, : count * 2 * _LINE].reshape(blocks, taps, vectors, 2, _BLOCK, _GROUP)
    halves = _nibbles(lines, 4).permute(0, 5, 1, 2, 3, 4, 6)  # (blocks, channel, tap, vector, line, half, k)
    whole = halves.reshape(-1, taps, vectors * _VECTOR)
    factors = content[:, count * 2 * _LINE : -2 * _LINE].reshape(blocks, taps, vectors, _BLOCK // 2)
    ordered = _nibbles(factors, 1).permute(0, 1, 4, 2, 3)  # (blocks, half, channel of the half, tap, vector)
    scales = ordered.reshape(-1, taps, vectors)
    return Weight((whole[:channels, :, :features] - 8).view(torch.int8), scales[:channels])


def _nibbles(content: torch.Tensor, place: int) -> torch.Tensor:
    """The low and the high half of each byte, as a new dimension at `place`."""
    return torch.stack([content & 15, content >> 4], place)


def _features(rows: torch.Tensor, channels: int) -> int:
    """The number of input features, which each block ends with."""
    if rows.dim() != 2 or rows.dtype != torch.int8 or not len(rows) or channels < 1 or rows.shape[1] < 2 * _LINE:
        raise _malformed(rows)
    features = int(rows[0, -_LINE:].clone().view(torch.int32)[0])
    if not 0 < features <= rows.numel() * 2:
        raise _malformed(rows)
    return features


def _require(packed: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(packed.shape) != shape:
        raise _malformed(packed)


def _malformed(packed: torch.Tensor) -> ExportError:
    return ExportError(
        f"a packed weight of shape {tuple(packed.shape)} and {packed.dtype} does not fit its layer",
        fix="make the graph again with taut.optimize",
    )
