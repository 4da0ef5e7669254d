"""Uneven messages between the ranks of a process group: each travels once to each peer, with no padding.

Gloo refuses to gather tensors of uneven sizes, and its sparse all-reduce sends 64-bit indices and merges them on the
way. Here every rank sends its bytes straight to each of the others.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from taut.distributed._traffic import HEADER_BYTES
from taut.errors import ArgumentError, CommunicationError
from taut.kernels import decode_indices, encode_indices

Coding: TypeAlias = Literal["plain", "compact"]
"""How indices travel: as int32, or as coded differences (about 9 bits each where 1 % of the entries are sent)."""

_CODINGS: tuple[Coding, ...] = ("plain", "compact")
_LEAST_ROOM = 2**16
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


def gather_uneven(tensor: torch.Tensor, group: dist.ProcessGroup | None = None) -> list[torch.Tensor]:
    """The one-dimensional tensors of all ranks, of any lengths and one dtype.

    Args:
        tensor: (length,), contiguous.
        group: the ranks; the default group if None. Nobody else uses it meanwhile.

    Returns:
        The tensors by rank; this rank's own is `tensor` itself.

    Raises:
        ArgumentError: the tensor is not one-dimensional, or not of real numbers.
        CommunicationError: ranks disagree on the dtype.
    """
    if tensor.dtype not in _DTYPES or tensor.ndim != 1:
        raise ArgumentError("tensor", f"{tensor.dtype} {tuple(tensor.shape)}", expected="(length,) real numbers")
    content = tensor.view(torch.uint8)
    message = content.new_empty(HEADER_BYTES + content.numel())
    message[HEADER_BYTES:] = content
    rows = _peers(group).exchange(message, tensor.numel(), _DTYPES.index(tensor.dtype))
    _check_forms(rows, lambda form: str(_DTYPES[form]).removeprefix("torch."))
    gathered = [row.content.view(tensor.dtype) for row in rows]
    gathered[dist.get_rank(group)] = tensor
    return gathered


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
    return gather_packed(pack_entries(indices, values, coding), indices, values, group, coding=coding)


def pack_entries(indices: torch.Tensor, values: torch.Tensor, coding: Coding = "plain") -> torch.Tensor:
    """The message of a rank in `gather_sparse`, (HEADER_BYTES + bytes,) uint8; the header is left to `gather_packed`.

    Raises:
        ArgumentError: the tensors do not fit together, or the coding is unknown.
    """
    _check(indices, values, coding)
    coded = indices if coding == "plain" else encode_indices(indices.cpu(), _MOST_ELEMENTS)
    # Values first, since coded indices may be of any length, and filled up, since int32 indices have to be aligned.
    end = HEADER_BYTES + values.numel() * values.element_size()
    start = _aligned(end)
    message = values.new_empty(start + coded.numel() * coded.element_size(), dtype=torch.uint8)
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
    rows = _peers(group).exchange(message, indices.numel(), form)
    _check_forms(rows, _describe)
    own = dist.get_rank(group)
    return [
        (indices, values) if rank == own else unpack_entries(row.content, row.entries, values.dtype, coding)
        for rank, row in enumerate(rows)
    ]


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


class _Row(NamedTuple):
    """What a rank has sent: the number of entries, how they are written, and the bytes."""

    entries: int
    form: int
    content: torch.Tensor


class _Peers:
    """The other ranks of a group.

    Over Gloo a message takes one round: a receiver knows from earlier messages how much room to offer, and the message
    says how long it is; only one that has outgrown that room is announced first. Other backends want to know the
    lengths, and get them in a round of their own.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        # The dictionary of all groups must not keep this one alive.
        self._shared = weakref.ref(group)
        self._rank, self._ranks = dist.get_rank(group), dist.get_world_size(group)
        self._room = [_LEAST_ROOM] * self._ranks if dist.get_backend(group) == "gloo" else None

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return self._shared()

    def exchange(self, message: torch.Tensor, count: int, form: int) -> list[_Row]:
        """Give a message to every rank; returns what each rank has given.

        Args:
            message: (HEADER_BYTES + bytes,) uint8; the header is written here.
            count: entries in it.
            form: of the entries.
        """
        if self._ranks == 1:
            return [_Row(count, form, message[HEADER_BYTES:])]
        header = message[:HEADER_BYTES]
        header.copy_(torch.tensor([message.numel() - HEADER_BYTES, count, form], dtype=torch.int64).view(torch.uint8))
        if self._room is None:
            lengths = message.new_empty(self._ranks * HEADER_BYTES)
            dist.all_gather_single(lengths, header, group=self._group)
            headers = list(lengths.split(HEADER_BYTES))
            contents = self._send(message[HEADER_BYTES:], [_parsed(one)[0] for one in headers])
            return [_Row(*_parsed(one)[1:], content) for one, content in zip(headers, contents, strict=True)]
        announced = message if message.numel() <= self._room[self._rank] else message[:HEADER_BYTES]
        rows = self._send(announced, self._room)
        lengths = [_parsed(row)[0] for row in rows]
        outgrown = [HEADER_BYTES + size > room for size, room in zip(lengths, self._room, strict=True)]
        contents = [row[HEADER_BYTES : HEADER_BYTES + size] for row, size in zip(rows, lengths, strict=True)]
        if any(outgrown):
            late = self._send(
                message[HEADER_BYTES:], [size * grown for size, grown in zip(lengths, outgrown, strict=True)]
            )
            contents = [new if grown else old for new, old, grown in zip(late, contents, outgrown, strict=True)]
        # Sender and receiver have seen the same messages, so that both come to the same room.
        self._room = [max(room, 2 * (HEADER_BYTES + size)) for room, size in zip(self._room, lengths, strict=True)]
        return [_Row(*_parsed(row)[1:], content) for row, content in zip(rows, contents, strict=True)]

    def _send(self, tensor: torch.Tensor, rooms: Sequence[int]) -> list[torch.Tensor]:
        """Give a tensor to every other rank that has room; rooms: for the message of each rank, 0 for none."""
        received = [tensor if rank == self._rank else tensor.new_empty(room) for rank, room in enumerate(rooms)]
        # Each rank begins with its next neighbour, so that no link carries the messages of all at once.
        operations = []
        for distance in range(1, self._ranks):
            source, target = (self._rank - distance) % self._ranks, (self._rank + distance) % self._ranks
            if rooms[source]:
                operations.append(dist.P2POp(dist.irecv, received[source], group=self._group, group_peer=source))
            if rooms[self._rank]:
                operations.append(dist.P2POp(dist.isend, tensor, group=self._group, group_peer=target))
        for work in dist.batch_isend_irecv(operations) if operations else ():
            work.wait()
        return received


_PEERS: WeakKeyDictionary[dist.ProcessGroup, _Peers] = WeakKeyDictionary()


def _peers(group: dist.ProcessGroup | None) -> _Peers:
    shared = group or dist.group.WORLD
    if shared is None:
        raise CommunicationError("no ranks", fix="torch.distributed.init_process_group()")
    found = _PEERS.get(shared)
    if found is None:
        found = _PEERS[shared] = _Peers(shared)
    return found


def _aligned(size: int) -> int:
    return (size + 3) // 4 * 4


def _parsed(row: torch.Tensor) -> tuple[int, int, int]:
    length, count, form = row[:HEADER_BYTES].view(torch.int64).tolist()
    return length, count, form


def _check_forms(rows: Sequence[_Row], describe: Callable[[int], str]) -> None:
    if len({row.form for row in rows}) > 1:
        described = ", ".join(f"rank {rank} {describe(row.form)}" for rank, row in enumerate(rows))
        raise CommunicationError(f"messages travel in different forms: {described}", expected="one form")


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
