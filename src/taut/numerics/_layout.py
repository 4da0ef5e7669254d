"""From codes and scales to packed buffers and back, and from codes to numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from taut.numerics._bits import pack, unpack
from taut.numerics._choice import scale_values
from taut.numerics._format import Format, Geometry
from taut.numerics._ggml import q4_0_bytes, q4_0_parts, q4_k_bytes, q4_k_parts


@dataclass(frozen=True)
class Parts:
    """What the buffers hold, unpacked.

    Attributes:
        codes: `(rows, columns)` element codes; whole blocks where the layout is ggml's.
        scales: `(rows, vectors)` integers or patterns, float16 or float32; None without.
        gammas: `(rows or 1, 1)` float32, or `(rows, blocks)` float16; None without.
        zero_points: `(rows or 1, 1)` uint8, or None.
        minima: `(rows, vectors)` uint8, or None.
        minimum_gammas: `(rows, blocks)` float16, or None.
    """

    codes: Tensor
    scales: Tensor | None = None
    gammas: Tensor | None = None
    zero_points: Tensor | None = None
    minima: Tensor | None = None
    minimum_gammas: Tensor | None = None

    @staticmethod
    def join(parts: Sequence[Parts]) -> Parts:
        """The parts of consecutive rows as one."""
        if len(parts) == 1:
            return parts[0]
        joined = {}
        for field in dataclasses.fields(Parts):
            tensors = [getattr(part, field.name) for part in parts]
            joined[field.name] = None if tensors[0] is None else torch.cat(tensors)
        return Parts(**joined)


def to_buffers(parts: Parts, number_format: Format) -> dict[str, Tensor]:
    """Pack codes and scales: by name `(rows, bytes)` uint8."""
    elements = number_format.elements
    if number_format.layout == "blocks":
        if parts.minima is None:
            return {"blocks": q4_0_bytes(parts.codes, present(parts.scales))}
        return {
            "blocks": q4_k_bytes(
                parts.codes,
                present(parts.scales),
                parts.minima,
                present(parts.gammas),
                present(parts.minimum_gammas),
            )
        }
    buffers = {"codes": pack(elements.to_stored(parts.codes), elements.bits)}
    if number_format.scales is not None:
        scales = present(parts.scales)
        floating = scales.is_floating_point()
        buffers["scales"] = (
            scales.contiguous().view(torch.uint8) if floating else pack(scales, number_format.scales.bits)
        )
    if parts.zero_points is not None:
        buffers["zero_points"] = pack(parts.zero_points, elements.bits)
    if parts.gammas is not None:
        buffers["gammas"] = parts.gammas.contiguous().view(torch.uint8)
    return buffers


def to_parts(buffers: Mapping[str, Tensor], number_format: Format, sizes: Geometry) -> Parts:
    """The inverse of `to_buffers`."""
    elements = number_format.elements
    if number_format.layout == "blocks":
        count = sizes.groups // number_format.block_vectors
        blocks = buffers["blocks"].view(sizes.rows, count, number_format.block_bytes)
        if number_format.offset == "minimum":
            codes, scales, minima, gammas, minimum_gammas = q4_k_parts(blocks)
            return Parts(codes, scales, gammas, None, minima, minimum_gammas)
        return Parts(*q4_0_parts(blocks))
    codes = elements.from_stored(unpack(buffers["codes"], elements.bits, sizes.columns))
    scales = gammas = zero_points = None
    if number_format.scales is not None:
        kind = number_format.scales.kind
        if kind == "float16" or kind == "float32":
            scales = _floats(buffers["scales"], getattr(torch, kind))
        else:
            scales = unpack(buffers["scales"], number_format.scales.bits, sizes.groups)
    if "zero_points" in buffers:
        zero_points = unpack(buffers["zero_points"], elements.bits, 1)
    if "gammas" in buffers:
        gammas = _floats(buffers["gammas"], torch.float32)
    return Parts(codes, scales, gammas, zero_points)


def decode_parts(parts: Parts, number_format: Format, sizes: Geometry) -> Tensor:
    """Numbers of codes: element times scale exactly, then times the coarse scale, rounded once.

    Q4_K follows ggml: coarse times scale rounded, times element rounded, less the rounded product of the minimum.

    Returns:
        `(rows, columns)` float32.
    """
    rows = parts.codes.shape[0]
    values = number_format.elements.values(parts.codes)
    if parts.minima is not None:
        scales = _products(present(parts.gammas), present(parts.scales))
        minima = _products(present(parts.minimum_gammas), parts.minima)
        blocks = values.view(rows, sizes.groups, sizes.vector)
        blocks.mul_(scales.unsqueeze(2)).sub_(minima.unsqueeze(2))
    else:
        if parts.zero_points is not None:
            values.sub_(parts.zero_points)
        if parts.scales is not None and number_format.scales is not None:
            _multiply_vectors(values, scale_values(parts.scales, number_format.scales.kind), sizes)
        if parts.gammas is not None:
            values.mul_(parts.gammas)
    return sizes.to_rows(values).contiguous() if number_format.layout == "blocks" else values


def present(tensor: Tensor | None) -> Tensor:
    """A part that the format is known to have."""
    assert tensor is not None
    return tensor


def _products(gammas: Tensor, codes: Tensor) -> Tensor:
    """Coarse scales `(rows, blocks)` times the codes `(rows, vectors)` of their vectors."""
    return gammas.float().repeat_interleave(codes.shape[1] // max(gammas.shape[1], 1), dim=1) * codes


def _multiply_vectors(values: Tensor, scales: Tensor, sizes: Geometry) -> None:
    """Multiply each vector by its scale, in place."""
    rows = values.shape[0]
    whole = sizes.vectors * sizes.vector
    if values.shape[1] == sizes.slices * whole:
        values.view(rows, sizes.groups, sizes.vector).mul_(scales.unsqueeze(2))
    else:
        spread = scales.view(rows, sizes.slices, sizes.vectors).repeat_interleave(sizes.vector, dim=2)
        values.view(rows, sizes.slices, sizes.length).mul_(spread[:, :, : sizes.length])


def _floats(buffer: Tensor, dtype: torch.dtype) -> Tensor:
    if buffer.storage_offset() % dtype.itemsize or not buffer.is_contiguous():
        buffer = buffer.clone(memory_format=torch.contiguous_format)
    return buffer.view(dtype)
