"""Messages between ranks that are all on one host, through memory that they share instead of its network.

Two slots in each rank's memory are enough without a word of thanks: a rank writes its next message but one only after
every other has written the next, that is, has read this one.
"""

from __future__ import annotations

import json
import os
import select
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import torch

from taut.distributed._segment import ROOM, OwnSegment, Segment, open_segment
from taut.distributed._traffic import HEADER_BYTES, parse_header
from taut.errors import CommunicationError
from taut.kernels import wait_for_signal
from taut.stats import available_cores

SWITCH = "TAUT_SHARED_MEMORY"
"""The environment variable that keeps messages on the network if it is 0 on any rank."""

Arrived: TypeAlias = Callable[[int, torch.Tensor, bool], None]
"""Told the rank, what begins with its whole message, and whether that is lent: valid during the call only."""

_WAIT_SECONDS = 0.05  # between looks at whether the others live
_SPIN_SECONDS = 50e-6
_FIX = "see the other ranks for the first failure, and start the job again from its checkpoint"


class SharedMemory:
    """The ranks of a group, all on this host.

    Args:
        own: what this rank writes.
        others: what the others write, by rank.
        processes: file descriptors of the others' processes, by rank; closed here.
        seconds: that a rank waits for the others.
    """

    def __init__(
        self, own: OwnSegment, others: Mapping[int, Segment], processes: Mapping[int, int], seconds: float
    ) -> None:
        self._own = own
        self._others = others
        self._processes = processes
        self._seconds = seconds
        weakref.finalize(self, _close, list(processes.values()))
        # More ranks than cores: one that looks again and again takes the core from one that it waits for.
        self._spin = _SPIN_SECONDS if len(others) < available_cores() else 0.0

    def draft(self, size: int) -> torch.Tensor | None:
        """(ROOM,) uint8 for the message of the next exchange, where it need not be copied; None if it is too long."""
        if size > ROOM or not self._own.close.alive:
            return None
        try:
            return self._own.draft(size)
        except OSError:
            return None

    def exchange(self, message: torch.Tensor, arrived: Arrived) -> None:
        """Give a message to every rank, and take theirs in the order of their arrival.

        Args:
            message: (bytes,) uint8, which begins with an int64, the bytes behind its header.
            arrived: told each other rank's.

        Raises:
            CommunicationError: a rank has died, has left or stands still, in this exchange or an earlier one.
        """
        if not self._own.close.alive:
            raise CommunicationError("the exchange failed: an earlier one of these ranks has", fix=_FIX)
        try:
            self._exchange(message, arrived)
        except OSError as error:
            self._own.close()
            raise CommunicationError(f"no memory for messages: {error}", fix="use smaller messages") from error
        except BaseException:
            self._own.close()  # the others are not left waiting
            raise

    def _exchange(self, message: torch.Tensor, arrived: Arrived) -> None:
        parts = _parts(message.numel())
        long: dict[int, torch.Tensor] = {}
        for rank, slot in self._swap(message if parts == 1 else message[:ROOM]):
            size = HEADER_BYTES + parse_header(slot)[0]
            parts = max(parts, _parts(size))
            if size <= ROOM:
                arrived(rank, slot, True)
            else:
                long[rank] = message.new_empty(size)
                long[rank][:ROOM] = slot[:ROOM]
        for part in range(1, parts):
            place = slice(part * ROOM, (part + 1) * ROOM)
            for rank, slot in self._swap(message[place]):
                if rank in long:
                    piece = long[rank][place]
                    piece.copy_(slot[: piece.numel()])
        for rank, whole in long.items():
            arrived(rank, whole, False)

    def _swap(self, content: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Write a part, then give the other ranks and their slots as they arrive."""
        number = self._own.write(content)
        deadline = time.monotonic() + self._seconds
        pending = list(self._others)
        while pending:
            signals = [self._others[rank].signal for rank in pending]
            found = wait_for_signal(signals, number, _WAIT_SECONDS, spin_seconds=self._spin)
            if found is None:
                self._check(pending, number, deadline)
            else:
                rank = pending.pop(found)
                yield rank, self._others[rank].slot(number)

    def _check(self, pending: list[int], number: int, deadline: float) -> None:
        for rank in pending:
            gone = "has died" if _ended(self._processes[rank]) else "has left" if self._others[rank].closed else None
            # What it wrote before its end counts.
            if gone and wait_for_signal([self._others[rank].signal], number, 0.0) is None:
                raise CommunicationError(f"the exchange failed: rank {rank} {gone}", fix=_FIX)
        if time.monotonic() > deadline:
            raise CommunicationError(
                f"the exchange failed: timed out after {self._seconds:g} s, waiting for rank "
                f"{', '.join(map(str, pending))}",
                fix=_FIX,
            )


def join_near(rank: int, tell: Callable[[bytes], list[bytes]], seconds: float) -> SharedMemory | None:
    """Share memory with the other ranks of a group if all are on this host; all of them call it.

    Hosts are told apart by their start, and namespaces of the network or of processes count as hosts of their own.
    Only ranks of one user share memory.

    Args:
        rank: of this process.
        tell: gives bytes to all ranks, and returns what each has given.
        seconds: that a rank waits for the others later.

    Returns:
        None, on every rank, if there is one that cannot or does not want to.
    """
    own, offer = _offered()
    offers = tell(offer)
    # Every rank sees the same offers, so that all go on or none.
    if own is None or not all(offers):
        return None
    described = [json.loads(offer) for offer in offers]
    if any(one["host"] != described[0]["host"] for one in described):
        return None
    others: dict[int, Segment] = {}
    processes: dict[int, int] = {}
    try:
        # Each begins with its next neighbour.
        for other in (*range(rank + 1, len(described)), *range(rank)):
            one = described[other]
            others[other] = open_segment(one["process"], one["descriptor"], bytes.fromhex(one["nonce"]))
            processes[other] = os.pidfd_open(one["process"])
        found = True
    except OSError:
        found = False
    shared = SharedMemory(own, others, processes, seconds)
    return shared if all(tell(b"1" if found else b"")) else None


def _offered() -> tuple[OwnSegment | None, bytes]:
    """Memory of this rank and where it is, or nothing."""
    if os.environ.get(SWITCH) == "0" or not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
        return None, b""
    try:
        own = OwnSegment()
        place = {"host": _host(), "process": os.getpid(), "descriptor": own.descriptor, "nonce": own.nonce.hex()}
    except OSError:
        return None, b""
    return own, json.dumps(place).encode()


def _host() -> list[str]:
    spaces = [str(Path(f"/proc/self/ns/{space}").readlink()) for space in ("net", "pid")]
    return [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), *spaces, str(os.getuid())]


def _parts(size: int) -> int:
    return -(-size // ROOM)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))
