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

from taut import kernels
from taut.distributed._peers import Row, peers_of
from taut.distributed._traffic import HEADER_BYTES, parse_header, write_header
from taut.errors import ArgumentError, KernelError

Coding: TypeAlias = Literal["plain", "compact"]
"""How entries travel: as they are, with int32 indices; or coded without loss, the indices by their differences (about
8 bits each where 1 % of the entries are sent), the values, but for float16, with shorter exponents."""

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
_CODED_VALUES = (torch.float32, torch.bfloat16)
_SAVED_BITS = 6.0  # of the 8 of an exponent: 5.9 to 6.3 where the largest of real gradients and residuals are sent


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
    size, form = HEADER_BYTES + content.numel(), _DTYPES.index(tensor.dtype)
    message = peers.room(size, content, network=network)[:size]
    write_header(message, tensor.numel(), form)
    message[HEADER_BYTES:] = content
    return peers.exchange(
        message,
        form,
        tensor,
        lambda row: (row.content.clone() if row.lent else row.content).view(tensor.dtype),
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
        coding: of the entries; the same on every rank.

    Returns:
        Indices, int32, and values by rank; this rank's own are those that were given.

    Raises:
        ArgumentError: the tensors do not fit together, or the coding is unknown.
        CommunicationError: ranks disagree on the coding or the dtype of values.
        KernelError: what has arrived is no message of entries.
    """
    return gather_packed(pack_for(group, indices, values, coding), indices, values, group, coding=coding)


def pack_for(
    group: dist.ProcessGroup | None, indices: torch.Tensor, values: torch.Tensor, coding: Coding
) -> torch.Tensor:
    """As `pack_entries`, for the next `gather_packed` of a group, which comes before any other use of it."""
    return pack_entries(indices, values, coding, lambda size: peers_of(group).room(size, values))


def pack_entries(
    indices: torch.Tensor,
    values: torch.Tensor,
    coding: Coding = "plain",
    new_room: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The message of a rank in `gather_sparse`, (HEADER_BYTES + bytes,) uint8.

    Args:
        indices: as there.
        values: as there.
        coding: as there.
        new_room: gives the (bytes or more,) uint8 to write it to; by default new memory.

    Raises:
        ArgumentError: the tensors do not fit together, or the coding is unknown.
    """
    _check(indices, values, coding)
    form = _form(values.dtype, coding)
    compact = coding == "compact"
    if compact and values.device.type != "cpu":
        return pack_entries(indices.cpu(), values.cpu(), coding).to(values.device)
    bound = kernels.entry_message_bound(indices.numel(), values.dtype, compact=compact)
    room = new_room(bound) if new_room is not None else values.new_empty(bound, dtype=torch.uint8)
    if values.device.type != "cpu":
        return _pack_plain(indices, values.detach(), room[:bound], form)
    places, given = indices.contiguous(), values.resolve_neg().contiguous()
    size = kernels.pack_entries(places, given, room, compact=compact, length=_MOST_ELEMENTS, number=form)
    return room[:size]


def _pack_plain(indices: torch.Tensor, values: torch.Tensor, message: torch.Tensor, form: int) -> torch.Tensor:
    """On the device of the message."""
    write_header(message, indices.numel(), form)
    split, start = HEADER_BYTES + values.numel() * values.itemsize, message.numel() - 4 * indices.numel()
    message[HEADER_BYTES:split].view(values.dtype).copy_(values)
    message[split:start] = 0
    message[start:].view(torch.int32).copy_(indices)
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

    def take(row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        return unpack_entries(row.message, row.entries, values.dtype, coding)

    return peers_of(group).exchange(message, _form(values.dtype, coding), (indices, values), take, _describe)


def unpack_entries(
    message: torch.Tensor, kept: int, dtype: torch.dtype, coding: Coding
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and values of what begins with a message that `pack_entries` has made.

    Raises:
        KernelError: it is no such message.
    """
    if message.device.type == "cpu":
        return kernels.unpack_entries(message, kept, dtype, compact=coding == "compact", length=_MOST_ELEMENTS)
    if coding == "compact":
        found = unpack_entries(message.cpu(), kept, dtype, coding)
        return found[0].to(message.device), found[1].to(message.device)
    return _unpack_plain(message, kept, dtype)


def _unpack_plain(message: torch.Tensor, kept: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Views."""
    end = kernels.entry_message_bound(kept, dtype, compact=False)
    if end > message.numel() or parse_header(message)[0] != end - HEADER_BYTES:
        raise KernelError(f"{parse_header(message)[0]} bytes have arrived for {kept} plain entries of {dtype}")
    split = HEADER_BYTES + kept * dtype.itemsize
    return message[end - 4 * kept : end].view(torch.int32), message[HEADER_BYTES:split].view(dtype)


def sparse_bytes(kept: float, elements: float, dtype: torch.dtype, coding: Coding = "plain") -> float:
    """Bytes of the message of a rank in `gather_sparse`, the expected amount for large entries at random places.

    Args:
        kept: entries that are sent.
        elements: that they are chosen from.
        dtype: of a value.
        coding: of the entries.
    """
    if coding == "plain":
        return kept * (dtype.itemsize + 4)
    value_bits = 8 * dtype.itemsize - (_SAVED_BITS if dtype in _CODED_VALUES else 0)
    return kept * (value_bits + coded_bits(kept / elements if elements else 1.0)) / 8


@lru_cache(maxsize=4096)
def coded_bits(share: float) -> float:
    """Bits of an index in the compact coding, where a share of all places was chosen at random: a Rice code of gaps."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    best = min(bits + 1 / -math.expm1(2**bits * math.log1p(-share)) for bits in range(31))
    return best + 8 * _BLOCK_HEADER / _BLOCK


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


def _form(dtype: torch.dtype, coding: Coding) -> int:
    """The number by which ranks see whether they agree."""
    return _CODINGS.index(coding) * len(_VALUE_TYPES) + _VALUE_TYPES.index(dtype)


def _describe(form: int) -> str:
    coding, values = divmod(form, len(_VALUE_TYPES))
    return f"{_CODINGS[coding]} entries with {str(_VALUE_TYPES[values]).removeprefix('torch.')} values"
