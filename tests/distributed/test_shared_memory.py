"""Shared memory: messages of all lengths arrive whole however fast each rank is, and no rank waits for a dead one."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.distributed import _segment, _shared_memory
from taut.distributed._segment import OwnSegment, open_segment
from taut.distributed._shared_memory import SWITCH, SharedMemory, join_near
from taut.distributed._traffic import HEADER_BYTES, parse_header
from taut.errors import CommunicationError

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"), reason="the system has no files without names"
)


def on_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each has returned, as if they were ranks."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [one.result(timeout=60) for one in [pool.submit(one) for one in work]]


def join(ranks: int, seconds: float = 30.0) -> list[SharedMemory | None]:
    """The ranks of a group that are threads of this process; each has mapped the others' memory for itself."""
    together = threading.Barrier(ranks)
    told: list[bytes] = [b""] * ranks

    def tell(rank: int, text: bytes) -> list[bytes]:
        together.wait(timeout=30)
        told[rank] = text
        together.wait(timeout=30)
        return list(told)

    return on_threads(
        [lambda rank=rank: join_near(rank, lambda text: tell(rank, text), seconds) for rank in range(ranks)]
    )


def joined(ranks: int, seconds: float = 30.0) -> list[SharedMemory]:
    found = join(ranks, seconds)
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def message_of(rank: int, number: int, size: int) -> torch.Tensor:
    content = torch.full((HEADER_BYTES + size,), (31 * number + rank) % 251, dtype=torch.uint8)
    content[:8].view(torch.int64)[0] = size
    return content


def swap(near: SharedMemory, message: torch.Tensor) -> dict[int, torch.Tensor]:
    taken: dict[int, torch.Tensor] = {}

    def arrived(rank: int, room: torch.Tensor, lent: bool) -> None:
        content = room[: HEADER_BYTES + parse_header(room)[0]]
        taken[rank] = content.clone() if lent else content

    near.exchange(message, arrived)
    return taken


def swap_all(near: Sequence[SharedMemory], messages: Sequence[torch.Tensor]) -> list[dict[int, torch.Tensor]]:
    return on_threads(
        [lambda one=one, message=message: swap(one, message) for one, message in zip(near, messages, strict=True)]
    )


@contextmanager
def parts_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_shared_memory, "ROOM", size)
        yield


@given(
    sizes=st.lists(st.lists(st.integers(0, 20_000), min_size=3, max_size=3), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
)
def test_messages_arrive_whole_however_fast_each_rank_is(sizes: list[list[int]], seed: int) -> None:
    def rank_of(rank: int) -> bool:
        pace = random.Random(seed + rank)
        right = True
        for number, row in enumerate(sizes):
            sum(range(pace.choice((0, 0, 10, 20_000))))
            found = swap(near[rank], message_of(rank, number, row[rank]))
            right &= all(torch.equal(found[other], message_of(other, number, row[other])) for other in found)
            right &= len(found) == 2
        return right

    with parts_of(4096):
        near = joined(3)
        assert on_threads([lambda rank=rank: rank_of(rank) for rank in range(3)]) == [True] * 3


def test_a_message_larger_than_the_memory_goes_in_parts() -> None:
    near = joined(2)
    sizes = (2 * _segment.ROOM + 17, 5)
    found = swap_all(near, [message_of(rank, 1, size) for rank, size in enumerate(sizes)])
    assert torch.equal(found[0][1], message_of(1, 1, sizes[1]))
    assert torch.equal(found[1][0], message_of(0, 1, sizes[0]))


def test_what_is_written_where_it_is_drafted_arrives_too() -> None:
    near = joined(2)
    for number in range(5):
        messages = []
        for rank, one in enumerate(near):
            draft = one.draft(HEADER_BYTES + 1000 * number)
            assert draft is not None
            message = message_of(rank, number, 1000 * number)
            draft[: len(message)] = message
            messages.append(draft[: len(message)])
        found = swap_all(near, messages)
        assert all(torch.equal(found[rank][1 - rank], message_of(1 - rank, number, 1000 * number)) for rank in range(2))
    assert near[0].draft(_segment.ROOM + 1) is None


def test_the_numbers_of_messages_wrap_around() -> None:
    near = joined(2)
    for one in near:
        one._own._number = 2**32 - 2
        one._own.signal[0] = -2
    for number in range(4):
        found = swap_all(near, [message_of(rank, number, 9) for rank in range(2)])
        assert torch.equal(found[0][1], message_of(1, number, 9))


def test_a_rank_that_does_not_come_is_an_error_on_the_others_and_stays_one() -> None:
    near = joined(2, seconds=0.1)
    with pytest.raises(CommunicationError, match=r"timed out after 0.1 s, waiting for rank 1"):
        swap(near[0], message_of(0, 0, 4))
    assert near[0].draft(4) is None
    with pytest.raises(CommunicationError, match="an earlier one"):
        swap(near[0], message_of(0, 1, 4))
    # The other one comes late: what was written for it is there, what would have followed is not.
    assert torch.equal(swap(near[1], message_of(1, 0, 4))[0], message_of(0, 0, 4))
    with pytest.raises(CommunicationError, match="rank 0 has left"):
        swap(near[1], message_of(1, 1, 4))


def test_a_rank_that_has_died_is_an_error_at_once() -> None:
    own, other = OwnSegment(), OwnSegment()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        near = SharedMemory(own, {1: other}, {1: os.pidfd_open(process.pid)}, 600.0)
        process.kill()
        with pytest.raises(CommunicationError, match="rank 1 has died"):
            swap(near, message_of(0, 0, 4))


def test_what_a_rank_has_written_before_its_end_counts() -> None:
    own, other = OwnSegment(), OwnSegment()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        near = SharedMemory(own, {1: other}, {1: os.pidfd_open(process.pid)}, 600.0)
        other.write(message_of(1, 0, 4))
        process.kill()
        process.wait()
        assert torch.equal(swap(near, message_of(0, 0, 4))[1], message_of(1, 0, 4))


def test_a_child_that_ends_does_not_close_what_it_has_inherited() -> None:
    own = OwnSegment()
    process = os.fork()
    if process == 0:
        own.close()
        os._exit(0)
    os.waitpid(process, 0)
    assert not own.closed
    own.write(message_of(0, 0, 4))


def test_without_memory_the_exchange_is_an_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    near = joined(2)

    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(CommunicationError, match="no memory for messages"):
        swap(near[0], message_of(0, 0, 4))
    monkeypatch.undo()
    with pytest.raises(CommunicationError, match="rank 0 has left"):
        swap(near[1], message_of(1, 0, 4))


def test_nothing_is_left_behind() -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    names = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    joined(2)  # imports and pools
    before = open_files()
    near = joined(3)
    swap_all(near, [message_of(rank, 0, 100) for rank in range(3)])
    assert open_files() > before
    assert not any(path.name.startswith("taut") for path in set(Path("/dev/shm").glob("*")) - names)
    del near
    assert open_files() == before
    assert "taut-exchange" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("lacking", ["switched off", "no files without names", "cannot be opened", "another host"])
def test_one_rank_that_cannot_keeps_all_on_the_network(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def on_the_second(there: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: instead(*args) if next(calls) == 1 else there(*args)

    def refuse(*_: object) -> Any:
        raise OSError("not here")

    match lacking:
        case "switched off":
            monkeypatch.setenv(SWITCH, "0")
        case "no files without names":
            monkeypatch.setattr(os, "memfd_create", on_the_second(os.memfd_create, refuse))
        case "cannot be opened":
            monkeypatch.setattr(_shared_memory, "open_segment", on_the_second(open_segment, refuse))
        case "another host":
            monkeypatch.setattr(_shared_memory, "_host", on_the_second(_shared_memory._host, lambda: ["elsewhere"]))
    assert join(3) == [None] * 3


def test_only_the_segment_that_was_offered_is_opened() -> None:
    own = OwnSegment()
    assert open_segment(os.getpid(), own.descriptor, own.nonce).nonce == own.nonce
    with pytest.raises(OSError, match="another process"):
        open_segment(os.getpid(), own.descriptor, bytes(16))
    plain = os.memfd_create("plain")
    try:
        with pytest.raises(OSError, match="no segment"):
            open_segment(os.getpid(), plain, own.nonce)
        with pytest.raises(OSError, match="No such file"):
            open_segment(os.getpid(), 10_000, own.nonce)
    finally:
        os.close(plain)
