"""Codes of any width packed row by row, the first code in the lowest bits; rows start on a byte."""

from __future__ import annotations

import torch
from torch import Tensor


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that a row of codes takes."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes.

    Args:
        codes: `(rows, count)` uint8, or int16 where `bits` is more than 8; each below `2**bits`.
        bits: width of a code, 1 to 16.

    Returns:
        `(rows, ceil(count * bits / 8))` uint8; bits behind the last code are zero.
    """
    rows, count = codes.shape
    if bits == 8:
        return codes.to(torch.uint8)
    if bits == 4:
        even = torch.nn.functional.pad(codes, (0, count % 2))
        return even[:, ::2] | (even[:, 1::2] << 4)
    places = torch.arange(bits, dtype=codes.dtype, device=codes.device)
    stream = ((codes.unsqueeze(-1) >> places) & 1).to(torch.uint8).view(rows, count * bits)
    stream = torch.nn.functional.pad(stream, (0, -count * bits % 8)).view(rows, packed_bytes(count, bits), 8)
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=codes.device)
    return (stream * weights).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of `pack`.

    Args:
        packed: `(rows, bytes)` uint8.
        bits: width of a code, 1 to 16.
        count: codes in a row.

    Returns:
        `(rows, count)` uint8, or int16 where `bits` is more than 8.
    """
    rows = packed.shape[0]
    if bits == 8:
        return packed
    if bits == 4:
        return torch.stack([packed & 15, packed >> 4], dim=-1).view(rows, 2 * packed.shape[1])[:, :count]
    dtype = torch.uint8 if bits <= 8 else torch.int16
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    stream = ((packed.unsqueeze(-1) >> places) & 1).view(rows, 8 * packed.shape[1])
    stream = stream[:, : count * bits].reshape(rows, count, bits).to(dtype)
    weights = 1 << torch.arange(bits, dtype=dtype, device=packed.device)
    return (stream * weights).sum(-1, dtype=dtype)
