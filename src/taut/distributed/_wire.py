"""Uneven messages between the ranks of a process group: each travels once to each peer, with no padding.

Gloo refuses to gather tensors of uneven sizes, and its sparse all-reduce sends 64-bit indices and merges them on the
way. Here every rank gives its bytes straight to each of the others: over the network, or through shared memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeAlias

import torch
import torch.distributed as dist

from taut.distributed._peers import Row, peers_of
from taut.distributed._traffic import HEADER_BYTES
from taut.errors import ArgumentError, CommunicationError
from taut.kernels import decode_indices, encode_indices

Coding: TypeAlias = Literal["plain", "compact"]
"""How indices travel: as int32, or as coded differences (about 9 bits each where 1 % of the entries are sent)."""

_CODINGS: tuple[Coding, ...] = ("plain", "compact")
_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)
_MOST_ELEMENTS = 2**31 - 1
_BLOCK, _BLOCK_HEADER = 512, 4.0  # indices a block of their code; its header and, on average, filling, in bytes
_VALUE_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def gather_uneven(
    tensor: torch.Tensor, group: dist.ProcessGroup | None = None, *, network: bool = False
) -> list[torch.Tensor]:
    """The one-dimensional tensors of all ranks, of any lengths and one dtype.

    Args:
        tensor: (length,), contiguous.
        group: the ranks; the default group if None. Nobody else uses it meanwhile.
        network: to go over the network also where all ranks are on one host and could share memory.

    Returns:
        The tensors by rank; this rank's own is `tensor` itself.

    Raises:
        ArgumentError: the tensor is not one-dimensional, or not of real numbers.
        CommunicationError: ranks disagree on the dtype.
    """
    if tensor.dtype not in _DTYPES or tensor.ndim != 1:
        raise ArgumentError("tensor", f"{tensor.dtype} {tuple(tensor.shape)}", expected="(length,) real numbers")
    content = tensor.view(torch.uint8)
    peers = peers_of(group)
    message = peers.new_message(HEADER_BYTES + content.numel(), content, network=network)
    message[HEADER_BYTES:] = content
    return peers.exchange(
        message,
        tensor.numel(),
        _DTYPES.index(tensor.dtype),
        tensor,
        lambda row: row.owned().view(tensor.dtype),
        lambda form: str(_DTYPES[form]).removeprefix("torch."),
        network=network,
    )


def gather_sparse(
    indices: torch.Tensor,
    values: torch.Tensor,
    group: dist.ProcessGroup | None = None,
    *,
    coding: Coding = "plain",
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The sparse entries of all ranks; indices and values travel in one message.

    Args:
        indices: (kept,) int32, ascending, no two equal.
        values: (kept,) float32, bfloat16 or float16, as they are to travel.
        group: the ranks; the default group if None. Nobody else uses it meanwhile.
        coding: of the indices; the same on every rank.

    Returns:
        Indices, int32, and values by rank; this rank's own are those that were given.

    Raises:
        ArgumentError: the tensors do not fit together, or the coding is unknown.
        CommunicationError: ranks disagree on the coding or the dtype of values.
        KernelError: coded indices that have arrived cannot be decoded.
    """
    return gather_packed(pack_for(group, indices, values, coding), indices, values, group, coding=coding)


def pack_for(
    group: dist.ProcessGroup | None, indices: torch.Tensor, values: torch.Tensor, coding: Coding
) -> torch.Tensor:
    """As `pack_entries`, for the next `gather_packed` of a group, which comes before any other use of it."""
    return pack_entries(indices, values, coding, lambda size: peers_of(group).new_message(size, values))


def pack_entries(
    indices: torch.Tensor,
    values: torch.Tensor,
    coding: Coding = "plain",
    new_message: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The message of a rank in `gather_sparse`, (HEADER_BYTES + bytes,) uint8; the header is left to `gather_packed`.

    Args:
        indices: as there.
        values: as there.
        coding: as there.
        new_message: gives the (bytes,) uint8 to write it to; by default new memory.

    Raises:
        ArgumentError: the tensors do not fit together, or the coding is unknown.
    """
    _check(indices, values, coding)
    coded = indices if coding == "plain" else encode_indices(indices.cpu(), _MOST_ELEMENTS)
    # Values first, since coded indices may be of any length, and filled up, since int32 indices have to be aligned.
    end = HEADER_BYTES + values.numel() * values.element_size()
    start = _aligned(end)
    size = start + coded.numel() * coded.element_size()
    message = new_message(size) if new_message is not None else values.new_empty(size, dtype=torch.uint8)
    message[HEADER_BYTES:end].view(values.dtype).copy_(values)
    message[end:start] = 0
    message[start:].view(coded.dtype).copy_(coded)
    return message


def gather_packed(
    message: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    group: dist.ProcessGroup | None,
    *,
    coding: Coding,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The sparse entries of all ranks, as `gather_sparse`, where this rank's are packed in a message already."""
    form = _CODINGS.index(coding) * len(_VALUE_TYPES) + _VALUE_TYPES.index(values.dtype)

    def take(row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        if coding == "plain":
            return unpack_entries(row.owned(), row.entries, values.dtype, coding)
        found, theirs = unpack_entries(row.content, row.entries, values.dtype, coding)
        return found, theirs.clone() if row.lent else theirs

    return peers_of(group).exchange(message, indices.numel(), form, (indices, values), take, _describe)


def unpack_entries(
    packed: torch.Tensor, kept: int, dtype: torch.dtype, coding: Coding
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and values of a message that `pack_entries` has made, without its header: views where they can be.

    Raises:
        CommunicationError: it holds another number of indices than of values.
        KernelError: its coded indices cannot be decoded.
    """
    split = kept * dtype.itemsize
    theirs = packed[_aligned(split) :]
    found = (
        theirs.view(torch.int32)
        if coding == "plain"
        else decode_indices(theirs.cpu(), _MOST_ELEMENTS).to(theirs.device)
    )
    if found.numel() != kept:
        raise CommunicationError(f"{found.numel()} indices have arrived with {kept} values")
    return found, packed[:split].view(dtype)


def sparse_bytes(kept: float, elements: float, value_bytes: int, coding: Coding = "plain") -> float:
    """Bytes of the message of a rank in `gather_sparse`, the expected amount for places chosen at random.

    Args:
        kept: entries that are sent.
        elements: that they are chosen from.
        value_bytes: of one value as it travels.
        coding: of the indices.
    """
    index_bits = 32.0 if coding == "plain" else coded_bits(kept / elements if elements else 1.0)
    return kept * (value_bytes + index_bits / 8)


@lru_cache(maxsize=4096)
def coded_bits(share: float) -> float:
    """Bits of an index in the compact coding, where a share of all places was chosen at random: a Rice code of gaps."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    best = min(bits + 1 / -math.expm1(2**bits * math.log1p(-share)) for bits in range(31))
    return best + 8 * _BLOCK_HEADER / _BLOCK


def _aligned(size: int) -> int:
    return (size + 3) // 4 * 4


def _check(indices: torch.Tensor, values: torch.Tensor, coding: str) -> None:
    if coding not in _CODINGS:
        raise ArgumentError("coding", coding, expected=" or ".join(_CODINGS))
    if indices.dtype != torch.int32 or indices.ndim != 1:
        raise ArgumentError("indices", f"{indices.dtype} {tuple(indices.shape)}", expected="(kept,) int32")
    if values.dtype not in _VALUE_TYPES or values.shape != indices.shape:
        raise ArgumentError(
            "values",
            f"{values.dtype} {tuple(values.shape)}",
            expected=f"({indices.numel()},) float32, bfloat16 or float16",
        )


def _describe(form: int) -> str:
    coding, values = divmod(form, len(_VALUE_TYPES))
    return f"{_CODINGS[coding]} indices and {str(_VALUE_TYPES[values]).removeprefix('torch.')} values"
