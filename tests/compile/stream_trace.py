"""Streams that watch which memory is read and written on them, and streams of a simulated device."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from taut.compile.scheduling import InOrderStreams

Clock = dict[int, int]
"""How much of each stream is known to be done."""


@dataclasses.dataclass
class Access:
    """One use of memory: where, and how far its stream was."""

    stream: int
    tick: int
    writes: bool
    operator: str


class _Watching(TorchDispatchMode):
    """Tells of every operator which storages it reads and writes."""

    def __init__(self, tell: Callable[[str, dict[int, Any], dict[int, Any]], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        read = _storages((args, kwargs))
        written = {key: storage for key, storage in _storages(made).items() if key not in read}
        if func._schema.is_mutable:
            written |= read
        self._tell(str(func), read, written)
        return made


def _storages(tree: Any) -> dict[int, Any]:
    tensors = [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}


class WatchedStreams(InOrderStreams):
    """Streams in order that find races: what would be wrong if they ran at the same time on a device.

    Memory is watched by its real addresses, apart from everything that the program says of itself. Two uses of it, of
    which one writes, need an event between them. A tensor that is no more gives its memory back to the stream that made
    it, as torch's allocator for CUDA does: whoever makes a tensor there next has to come after all uses of the old one.

    Attributes:
        races: what was found, in words.
        operators: how many were watched.
    """

    def __init__(self) -> None:
        super().__init__()
        self._restart()

    def _restart(self) -> None:
        self.races: list[str] = []
        self.operators = 0
        self._clocks: dict[int, Clock] = {}
        self._at: dict[int, Clock] = {}
        self._uses: dict[int, list[Access]] = {}
        self._alive: dict[int, StorageWeakRef] = {}
        self._given_back: dict[int, list[Access]] = {}

    def capture(self, issue: Callable[[], Any]) -> Callable[[], Any]:
        self._restart()
        return super().capture(issue)

    @contextlib.contextmanager
    def run_on(self, stream: int) -> Iterator[None]:
        with super().run_on(stream), _Watching(lambda *uses: self._operator(stream, *uses)):
            yield

    def record(self, stream: int) -> int:
        event = super().record(stream)
        self._at[event] = dict(self._clock(stream))
        return event

    def wait(self, stream: int, event: int) -> None:
        super().wait(stream, event)
        clock = self._clock(stream)
        for other, tick in self._at[event].items():
            clock[other] = max(clock.get(other, 0), tick)

    def end(self) -> None:
        """Note what stream 0 does not wait for in the end."""
        for uses in self._uses.values():
            self.races += [f"{use.operator} is not waited for in the end" for use in uses if not self._after(0, use)]

    def _clock(self, stream: int) -> Clock:
        return self._clocks.setdefault(stream, {})

    def _after(self, stream: int, use: Access) -> bool:
        return self._clock(stream).get(use.stream, 0) >= use.tick

    def _operator(self, stream: int, name: str, read: dict[int, Any], written: dict[int, Any]) -> None:
        self.operators += 1
        for key, alive in list(self._alive.items()):
            if alive.expired():
                uses = self._uses.pop(key)
                home = next((use.stream for use in uses if use.writes), None)
                if home is not None:
                    self._given_back.setdefault(home, []).extend(uses)
                del self._alive[key]
        clock = self._clock(stream)
        clock[stream] = clock.get(stream, 0) + 1
        for key, storage in (read | written).items():
            writes = key in written
            if writes and key not in self._uses:
                late = [use for use in self._given_back.get(stream, ()) if not self._after(stream, use)]
                self.races += [f"{name} takes memory that {use.operator} still uses" for use in late]
            for use in self._uses.get(key, ()):
                if (writes or use.writes) and not self._after(stream, use):
                    self.races.append(f"{name} on {stream} and {use.operator} on {use.stream}")
            self._uses.setdefault(key, []).append(Access(stream, clock[stream], writes, name))
            self._alive.setdefault(key, StorageWeakRef(storage))


class SimulatedStreams(InOrderStreams):
    """A device that runs its streams at the same time: each kernel takes as long as it is told.

    Args:
        seconds: of each operator by its name, e.g. "aten.conv2d.default".
        other: seconds of all others.
    """

    def __init__(self, seconds: dict[str, float], other: float = 0.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._other = other
        self._now: dict[int, float] = {}
        self._happened: dict[int, float] = {}
        self._lengths: dict[Callable[[], object], float] = {}

    @contextlib.contextmanager
    def run_on(self, stream: int) -> Iterator[None]:
        with super().run_on(stream), _Watching(lambda name, *_: self.run(stream, self._seconds.get(name, self._other))):
            yield

    def run(self, stream: int, seconds: float) -> None:
        """Let a kernel run on a stream."""
        self._now[stream] = self._now.get(stream, 0.0) + seconds

    def record(self, stream: int) -> int:
        event = super().record(stream)
        self._happened[event] = self._now.get(stream, 0.0)
        return event

    def wait(self, stream: int, event: int) -> None:
        super().wait(stream, event)
        self._now[stream] = max(self._now.get(stream, 0.0), self._happened[event])

    def stamp(self, stream: int) -> float:
        return self._now.get(stream, 0.0)

    def capture(self, issue: Callable[[], Any]) -> Callable[[], Any]:
        def anew() -> Any:
            self._now.clear()
            return issue()

        replay = super().capture(anew)
        self._lengths[replay] = max(self._now.values(), default=0.0)
        return replay

    def time(self, run: Callable[[], object], count: int) -> float:
        return count * self._lengths[run]
