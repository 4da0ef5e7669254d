"""Ranks of a process group as child processes on this host, which run what they are given."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from taut.errors import ArgumentError, MeasurementError

_T = TypeVar("_T")
_START_SECONDS = 180.0
_COLLECTIVE_SECONDS = 120.0


class Place(NamedTuple):
    """Where a rank lives: its network namespace (None for the host's) and its network interface."""

    namespace: str | None
    interface: str


class LocalRanks:
    """A Gloo process group of child processes, alive from entering to leaving.

    Args:
        ranks: how many.
        places: where each of them lives; by default all on the loopback interface of this host.
        threads: of torch in each rank.

    Raises:
        ArgumentError: `ranks` or `threads` is not positive.
        MeasurementError: on entering, if the group does not come up.
    """

    def __init__(self, ranks: int, *, places: Sequence[Place] | None = None, threads: int = 1) -> None:
        for name, value in (("ranks", ranks), ("threads", threads)):
            if value < 1:
                raise ArgumentError(name, value, expected="1 or more")
        self._places = list(places) if places is not None else [Place(None, "lo")] * ranks
        self._threads = threads
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="taut-ranks-")
        store = str(Path(self._folder.name) / "store")
        try:
            for rank, place in enumerate(self._places):
                ours, theirs = context.Pipe()
                arguments = (rank, len(self), place, store, self._threads, theirs)
                process = context.Process(target=_serve, args=arguments, daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
            self._collect(_START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, function: Callable[..., _T], *args: Any, timeout: float = 600.0) -> list[_T]:
        """What `function(*args)` returns on each rank; it finds the default process group initialised.

        Args:
            function: at the top level of a module.
            args: what travels by pickle.
            timeout: seconds.

        Raises:
            MeasurementError: a rank raised, died or took too long; all ranks are ended then.
        """
        if not self._connections:
            raise MeasurementError("the ranks are not running", fix="use them within their `with` block")
        try:
            for connection in self._connections:
                connection.send((function, args))
            return self._collect(timeout)
        except BaseException as error:
            self.close()
            if isinstance(error, BrokenPipeError):
                raise MeasurementError("a rank has died") from error
            raise

    def close(self) -> None:
        """End the ranks at once; nothing happens if none are running."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._connections, self._processes = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _collect(self, timeout: float) -> list[Any]:
        deadline = time.monotonic() + timeout
        waiting: dict[Any, int] = dict(zip(self._connections, range(len(self)), strict=True))
        results: list[Any] = [None] * len(self)
        while waiting:
            ready: list[Any] = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise MeasurementError(
                    f"rank {', '.join(map(str, waiting.values()))}: no answer within {timeout:g} s",
                    fix="use smaller messages, or a faster link",
                )
            for connection in ready:
                rank = waiting.pop(connection)
                try:
                    succeeded, value = connection.recv()
                except (EOFError, ConnectionResetError) as error:
                    raise MeasurementError(f"rank {rank} has died") from error
                if not succeeded:
                    raise MeasurementError(f"rank {rank}: {value}")
                results[rank] = value
        return results


def _serve(rank: int, ranks: int, place: Place, store: str, threads: int, connection: Connection) -> None:
    """The life of a rank: join the group, then run what comes until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        # Before any thread of Gloo is made: a thread takes the namespace of its maker.
        if place.namespace is not None:
            _enter_namespace(place.namespace)
        os.environ["GLOO_SOCKET_IFNAME"] = place.interface
        import torch
        import torch.distributed as dist

        torch.set_num_threads(threads)
        limit = datetime.timedelta(seconds=_COLLECTIVE_SECONDS)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=limit)
        dist.barrier()
    except Exception:
        connection.send((False, _last_lines()))
        return
    connection.send((True, None))
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, args = connection.recv()
            try:
                answer = (True, function(*args))
            except Exception:
                answer = (False, _last_lines())
            connection.send(answer)
    os._exit(0)  # the other ranks may be gone: an orderly farewell of Gloo would wait for them


def _last_lines() -> str:
    return "\n".join(traceback.format_exc().strip().splitlines()[-6:])


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _enter_namespace(name: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open("rb") as file:
        if libc.setns(file.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
            error = ctypes.get_errno()
            raise OSError(error, f"network namespace {name}: {os.strerror(error)}")
