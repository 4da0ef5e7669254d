"""What ranks do in the tests of the wire and of the lab."""

from __future__ import annotations

import os
import time
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from taut.distributed import _probe, gather_sparse, gather_uneven
from taut.distributed._peers import peers_of
from taut.distributed._shared_memory import SWITCH
from taut.errors import CommunicationError, MeasurementError


def entries_of(rank: int, kept: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries that every rank can compute of every other."""
    generator = torch.Generator().manual_seed(1000 * kept + rank)
    indices = torch.randint(1, 200, (kept,), generator=generator).cumsum(0).to(torch.int32)
    return indices, torch.randn(kept, generator=generator).to(dtype)


def new_group(shared: bool) -> Any:
    """All ranks once more, with shared memory or without."""
    group = dist.new_group()
    assert isinstance(group, dist.ProcessGroup)
    with mock.patch.dict(os.environ, {SWITCH: "1" if shared else "0"}):
        gather_uneven(torch.zeros(1), group)
    assert (peers_of(group)._near is not None) == shared
    return group


def exchange_growing_entries(shared: bool) -> int:
    """Exchanges of all sizes and forms one after the other; returns how many were right."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    group = new_group(shared)
    right = 0
    # From nothing to more than the room that receivers offer, back, and more than twice as much at once.
    for step, kept in enumerate((0, 1, 5, 3000, 20_000, 7, 90_000, 0, 89_999)):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for coding in ("plain", "compact"):
                sizes = [kept // (1 + (other + step) % ranks) for other in range(ranks)]
                found = gather_sparse(*entries_of(rank, sizes[rank], dtype), group, coding=coding)
                expected = [entries_of(other, size, dtype) for other, size in enumerate(sizes)]
                right += all(
                    torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(found, expected, strict=True)
                )
    return right


def exchange_uneven(shared: bool, network: bool = False) -> bool:
    """Whether tensors of every length and dtype arrive as they were."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    group = new_group(shared)
    before = messages_in_memory(group)
    for dtype in (torch.uint8, torch.int64, torch.float64, torch.bfloat16):
        for length in (0, 3, 100_001, *((17_000_000,) if dtype == torch.uint8 else ())):
            sent = [(torch.arange(length * other) % 100).to(dtype) for other in range(ranks)]
            found = gather_uneven(sent[rank], group, network=network)
            if not all(torch.equal(a, b) for a, b in zip(found, sent, strict=True)):
                return False
    return (messages_in_memory(group) > before) == (shared and not network)


def messages_in_memory(group: Any) -> int:
    """How many messages this rank has given through shared memory."""
    near = peers_of(group)._near
    return 0 if near is None else near._own._number


def disagree() -> str:
    """What a rank is told where the ranks travel in different forms."""
    coding = "plain" if dist.get_rank() == 0 else "compact"
    try:
        gather_sparse(*entries_of(0, 10, torch.float32), coding=coding)
    except CommunicationError as error:
        return str(error)
    return "nothing"


def rank_and_size() -> tuple[int, int]:
    return dist.get_rank(), dist.get_world_size()


def fail_on_one() -> None:
    if dist.get_rank() == 1:
        raise ValueError("rank one cannot")
    dist.barrier()


def never_answer() -> None:
    if dist.get_rank() == 1:
        dist.barrier()


def seconds_of_all_reduce(elements: int, repeats: int = 3) -> float:
    """The fastest of some all-reduces."""
    tensor = torch.zeros(elements)
    taken = []
    for _ in range(repeats + 1):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(tensor)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def gather_once(kept: int, coding: Any) -> None:
    gather_sparse(*entries_of(dist.get_rank(), kept, torch.bfloat16), coding=coding)


def probe_where_rank_zero_fails() -> str:
    """What a rank is told where rank 0 cannot make a profile."""

    def refuse(_: int) -> None:
        raise MeasurementError("no loopback here")

    with mock.patch.multiple(_probe, measure_group=lambda *_: None, LocalRanks=refuse):
        try:
            return str(_probe.probe_group())
        except MeasurementError as error:
            return str(error)
