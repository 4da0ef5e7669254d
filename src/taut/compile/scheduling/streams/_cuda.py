"""Streams of a CUDA device, captured in CUDA graphs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch

from taut.compile.scheduling.streams._streams import InOrderStreams, Streams, as_device
from taut.errors import ArgumentError, GraphError

T = TypeVar("T")

_WARM_UPS = 3
_CAPTURING = threading.Lock()
"""Of this process: torch allows one capture at a time, and nobody may wait for the device meanwhile."""


class CudaStreams:
    """Streams of a CUDA device; what is captured becomes one CUDA graph with memory of its own.

    Attributes:
        device: the CUDA device.

    Raises:
        ArgumentError: torch sees no such device.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        wanted = as_device(device)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if wanted.type != "cuda" or (wanted.index or 0) >= count:
            found = f"{count} CUDA devices" if count else "no CUDA device"
            raise ArgumentError(
                "device",
                str(device),
                expected=f"a CUDA device that torch sees; this process sees {found}",
                fix="use a host with a GPU and a build of torch for CUDA, or schedule for the CPU with taut.compile",
            )
        self.device = torch.device("cuda", torch.cuda.current_device() if wanted.index is None else wanted.index)
        self._streams: list[torch.cuda.Stream] = []
        self._last: torch.cuda.Event | None = None

    def run_on(self, stream: int) -> AbstractContextManager[Any]:
        """Issue what runs inside to a stream."""
        return torch.cuda.stream(self._stream(stream))

    def record(self, stream: int) -> torch.cuda.Event:
        """An event that happens when all that was issued to a stream so far is done."""
        return _recorded(self._stream(stream))

    def wait(self, stream: int, event: torch.cuda.Event) -> None:
        """Let what is issued to a stream from here on wait for an event."""
        self._stream(stream).wait_event(event)

    def stamp(self, stream: int) -> torch.cuda.Event:
        """An event that notes the time in each replay."""
        event = torch.cuda.Event(enable_timing=True, external=True)
        event.record(self._stream(stream))
        return event

    def seconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """Seconds between two stamps of the latest replay."""
        return first.elapsed_time(last) * 1e-3

    def capture(self, issue: Callable[[], T]) -> Callable[[], T]:
        """Capture what `issue` issues, after a few runs of it that set libraries up.

        What is returned keeps `issue` alive, and with it the tensors that the graph reads.

        Raises:
            GraphError: it does what cannot be captured, e.g. lets the host wait for the device.
        """
        graph = torch.cuda.CUDAGraph()
        failed: BaseException | None = None
        # torch leaves the stream of a capture current if it fails.
        caller = torch.cuda.stream(torch.cuda.current_stream(self.device))
        with _CAPTURING, torch.cuda.device(self.device), caller:
            self.synchronize()  # inputs may have been written on any stream
            for _ in range(_WARM_UPS):
                issue()
            self.synchronize()
            try:
                with torch.cuda.graph(graph, stream=self._stream(0), capture_error_mode="thread_local"):
                    try:
                        result = issue()
                    except BaseException as error:
                        failed = error
                        raise
            except RuntimeError as error:  # perhaps of ending what had failed, which says less
                if isinstance(failed, KeyboardInterrupt):
                    raise failed from None
                raise GraphError(
                    f"the model cannot be captured in a CUDA graph: {failed or error}",
                    expected="work that never lets the host wait for the device",
                    fix="move what synchronises out of the model, or compile it with torch.compile",
                ) from (failed or error)

        def replay(_reads: Callable[[], T] = issue) -> T:
            with torch.cuda.device(self.device):
                graph.replay()
            return result

        return replay

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Let the caller's stream wait for the block before this one."""
        current = torch.cuda.current_stream(self.device)
        if self._last is not None:
            current.wait_event(self._last)
        try:
            yield
        finally:
            self._last = _recorded(current)

    def time(self, run: Callable[[], object], count: int) -> float:
        """Seconds between events around `count` calls."""
        current = torch.cuda.current_stream(self.device)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record(current)
        for _ in range(count):
            run()
        last.record(current)
        last.synchronize()
        return first.elapsed_time(last) * 1e-3

    def synchronize(self) -> None:
        """Let the host wait for the device."""
        torch.cuda.synchronize(self.device)

    def _stream(self, number: int) -> torch.cuda.Stream:
        while len(self._streams) <= number:
            self._streams.append(torch.cuda.Stream(self.device))
        return self._streams[number]


def _recorded(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record(stream)
    return event


def streams_of(device: torch.device | str) -> Streams:
    """The streams of a device; those of the CPU run in order.

    Raises:
        ArgumentError: it is neither the CPU nor a CUDA device that torch sees.
    """
    wanted = as_device(device)
    return InOrderStreams() if wanted.type == "cpu" else CudaStreams(wanted)
