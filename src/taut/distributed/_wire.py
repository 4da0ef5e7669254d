"""Uneven messages between the ranks of a process group: each travels once to each peer, with no padding.

Gloo refuses to gather tensors of uneven sizes, and its sparse all-reduce sends 64-bit indices and merges them on the
way. Here the lengths are exchanged first; then every rank sends its bytes straight to each of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.distributed as dist

import taut.kernels as kernels
from taut.errors import ArgumentError, CommunicationError

Coding: TypeAlias = Literal["plain", "compact"]
"""How indices travel: as int32, or as coded differences (about 9 bits each where 1 % of the entries are sent)."""

_CODINGS: tuple[Coding, ...] = ("plain", "compact")
_MOST_ELEMENTS = 2**31 - 1
_BLOCK, _BLOCK_HEADER = 512, 4.0  # indices a block of their code; its header and, on average, filling, in bytes
_VALUE_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def gather_uneven(tensor: torch.Tensor, group: dist.ProcessGroup | None = None) -> list[torch.Tensor]:
    """The one-dimensional tensors of all ranks, of any lengths and one dtype.

    Args:
        tensor: (length,), contiguous.
        group: the ranks; the default group if None.

    Returns:
        The tensors by rank; this rank's own is `tensor` itself.
    """
    lengths = [length for (length,) in _gather_counts([tensor.numel()], tensor.device, group)]
    return _exchange(tensor, lengths, group)


def gather_sparse(
    indices: torch.Tensor,
    values: torch.Tensor,
    group: dist.ProcessGroup | None = None,
    *,
    coding: Coding = "plain",
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The sparse entries of all ranks. Two rounds: the counts, then one message that holds indices and values.

    Args:
        indices: (kept,) int32, ascending, no two equal.
        values: (kept,) float32, bfloat16 or float16, as they are to travel.
        group: the ranks; the default group if None.
        coding: of the indices; the same on every rank.

    Returns:
        Indices, int32, and values by rank.

    Raises:
        ArgumentError: the tensors do not fit together, or the coding is unknown.
        CommunicationError: ranks disagree on the coding or the dtype of values.
        KernelError: coded indices that have arrived cannot be decoded.
    """
    _check(indices, values, coding)
    kept, width = indices.numel(), values.element_size()
    coded = indices if coding == "plain" else kernels.encode_indices(indices, _MOST_ELEMENTS)
    # Values first, since coded indices may be of any length, and filled up, since int32 indices have to be aligned.
    filling = values.new_zeros(_aligned(kept * width) // width - kept)
    packed = torch.cat([values.view(torch.uint8), filling.view(torch.uint8), coded.view(torch.uint8)])
    form = _CODINGS.index(coding) * len(_VALUE_TYPES) + _VALUE_TYPES.index(values.dtype)
    counts = _gather_counts([kept, packed.numel(), form], indices.device, group)
    forms = {one[2] for one in counts}
    if len(forms) > 1:
        described = ", ".join(f"rank {rank} {_describe(one[2])}" for rank, one in enumerate(counts))
        raise CommunicationError(f"sparse entries travel in different forms: {described}", expected="one form")
    rows = _exchange(packed, [one[1] for one in counts], group)
    entries = []
    for row, (count, _, _) in zip(rows, counts, strict=True):
        split = count * width
        theirs = row[_aligned(split) :]
        found = theirs.view(torch.int32) if coding == "plain" else kernels.decode_indices(theirs, _MOST_ELEMENTS)
        if found.numel() != count:
            raise CommunicationError(f"{found.numel()} indices have arrived with {count} values")
        entries.append((found, row[:split].view(values.dtype)))
    return entries


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


def coded_bits(share: float) -> float:
    """Bits of an index in the compact coding, where a share of all places was chosen at random: a Rice code of gaps."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    best = min(bits + 1 / -math.expm1(2**bits * math.log1p(-share)) for bits in range(31))
    return best + 8 * _BLOCK_HEADER / _BLOCK


def _aligned(size: int) -> int:
    return (size + 3) // 4 * 4


def _gather_counts(counts: Sequence[int], device: torch.device, group: dist.ProcessGroup | None) -> list[list[int]]:
    ranks = dist.get_world_size(group)
    if ranks == 1:
        return [list(counts)]
    gathered = torch.empty((ranks, len(counts)), dtype=torch.int64, device=device)
    dist.all_gather_single(gathered.view(-1), torch.tensor(counts, dtype=torch.int64, device=device), group=group)
    return gathered.tolist()


def _exchange(tensor: torch.Tensor, lengths: Sequence[int], group: dist.ProcessGroup | None) -> list[torch.Tensor]:
    """Give a tensor to every other rank; lengths: of theirs, by rank."""
    rank, ranks = dist.get_rank(group), len(lengths)
    received = [tensor if peer == rank else tensor.new_empty(length) for peer, length in enumerate(lengths)]
    # Each rank begins with its next neighbour, so that no link carries the messages of all at once.
    operations = []
    for distance in range(1, ranks):
        source, target = (rank - distance) % ranks, (rank + distance) % ranks
        if lengths[source]:
            operations.append(dist.P2POp(dist.irecv, received[source], group=group, group_peer=source))
        if lengths[rank]:
            operations.append(dist.P2POp(dist.isend, tensor, group=group, group_peer=target))
    for work in dist.batch_isend_irecv(operations) if operations else ():
        work.wait()
    return received


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
