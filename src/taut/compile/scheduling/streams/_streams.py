"""Streams of a device: what schedules need of them, and streams of a host that runs everything in order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch

from taut.errors import ArgumentError

T = TypeVar("T")


class Streams(Protocol):
    """Queues of work for a device, numbered from 0; what is on different ones is in order by events only.

    Attributes:
        device: whose they are.
    """

    device: torch.device

    def run_on(self, stream: int) -> AbstractContextManager[Any]:
        """Issue what runs inside to a stream."""
        ...

    def record(self, stream: int) -> Any:
        """An event that happens when all that was issued to a stream so far is done."""
        ...

    def wait(self, stream: int, event: Any) -> None:
        """Let what is issued to a stream from here on wait for an event."""
        ...

    def stamp(self, stream: int) -> Any:
        """Note the device's time when all that was issued to a stream so far is done; only while capturing."""
        ...

    def seconds(self, first: Any, last: Any) -> float:
        """Seconds between two stamps of the latest replay, after `synchronize`."""
        ...

    def capture(self, issue: Callable[[], T]) -> Callable[[], T]:
        """Record what `issue` issues to any stream, from stream 0 on; what it returns does all of it again.

        It waits for the device first. A replay runs on the stream that is the caller's at that time, and returns what
        `issue` returned; tensors therein hold the results of the latest replay.
        """
        ...

    def call(self) -> AbstractContextManager[Any]:
        """Replay, read and write buffers that replays share inside: it waits for such blocks before it."""
        ...

    def time(self, run: Callable[[], object], count: int) -> float:
        """Seconds of the device for `count` calls of `run`, which replays."""
        ...

    def synchronize(self) -> None:
        """Let the host wait for the device."""
        ...


class Traced(NamedTuple):
    """One thing that was issued to a stream: work between "begin" and "end", or an event."""

    kind: Literal["begin", "end", "record", "wait"]
    stream: int
    event: int = -1


class InOrderStreams:
    """Streams of a host without any: everything happens at once, as it is issued, and a replay issues it again.

    Programs for streams run here as they do on a GPU, only not at the same time, and what they issue can be looked at.

    Attributes:
        device: the CPU.
        trace: what was issued since the latest capture began.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.trace: list[Traced] = []
        self._events = 0

    @contextlib.contextmanager
    def run_on(self, stream: int) -> Iterator[None]:
        """Issue what runs inside to a stream."""
        self.trace.append(Traced("begin", stream))
        yield
        self.trace.append(Traced("end", stream))

    def record(self, stream: int) -> int:
        """The number of an event; it has happened."""
        self._events += 1
        self.trace.append(Traced("record", stream, self._events))
        return self._events

    def wait(self, stream: int, event: int) -> None:
        """Note that a stream waits for an event."""
        self.trace.append(Traced("wait", stream, event))

    def stamp(self, stream: int) -> float:
        """The time."""
        return time.perf_counter()

    def seconds(self, first: float, last: float) -> float:
        """Seconds between two stamps."""
        return last - first

    def capture(self, issue: Callable[[], T]) -> Callable[[], T]:
        """Issue everything once; what is returned issues it again."""
        self.trace.clear()
        issue()

        def replay() -> T:
            self.trace.clear()
            return issue()

        return replay

    def call(self) -> AbstractContextManager[Any]:
        """There is nothing to wait for."""
        return contextlib.nullcontext()

    def time(self, run: Callable[[], object], count: int) -> float:
        """Seconds of `count` calls."""
        start = time.perf_counter()
        for _ in range(count):
            run()
        return time.perf_counter() - start

    def synchronize(self) -> None:
        """There is nothing to wait for."""


def as_device(device: torch.device | str) -> torch.device:
    """The device of that name; raises ArgumentError if torch knows none."""
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ArgumentError("device", str(device), expected='"cpu", "cuda" or "cuda:N"') from error
