"""A local network with slow links: one network namespace per rank, each with a token bucket on its own end.

Needs root and Linux with network namespaces and the token bucket filter (`tbf`). Only bandwidth is shaped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from taut.distributed._local_ranks import LocalRanks, Place
from taut.errors import ArgumentError, MeasurementError

_T = TypeVar("_T")
_PREFIX = "taut-lab"
_INTERFACE = "eth0"
_BURST_BYTES = 32 * 1024
_QUEUE_SECONDS = 0.02  # a longer queue makes TCP take its own delay for loss, a shorter one drops its packets
_QUEUE_BYTES = 64 * 1024, 1024 * 1024  # fewest and most
_numbers = itertools.count()


class LinkLab:
    """Ranks that see each other over links of a chosen bandwidth, alive from entering to leaving.

    Each rank is a process in a network namespace of its own, and a veth pair connects it to a bridge in one more
    namespace. What a rank sends passes the token bucket on its end. Namespaces carry the process id in their names;
    those of processes that have died are removed by the next lab.

    Args:
        ranks: how many.
        bandwidth: bytes per second that each rank can send; None for unshaped links.
        threads: of torch in each rank.

    Raises:
        ArgumentError: `ranks`, `threads` or `bandwidth` is not positive.
        MeasurementError: on entering, where `missing_for_lab` says why the lab cannot be.
    """

    def __init__(self, ranks: int, *, bandwidth: float | None = None, threads: int = 1) -> None:
        _check_bandwidth(bandwidth)
        name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.bandwidth = bandwidth
        self._bridge = f"{name}-bridge"
        self._namespaces = [f"{name}-{rank}" for rank in range(ranks)]
        self._ranks = LocalRanks(ranks, places=[Place(one, _INTERFACE) for one in self._namespaces], threads=threads)

    def __enter__(self) -> Self:
        reason = missing_for_lab()
        if reason is not None:
            raise MeasurementError(f"no lab of shaped links on this host: {reason}", fix="run it as root on Linux")
        _sweep()
        try:
            self._build()
            self.shape(self.bandwidth)
            self._ranks.__enter__()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ranks.close()
        finally:
            self._remove()

    def __len__(self) -> int:
        return len(self._ranks)

    def shape(self, bandwidth: float | None) -> None:
        """Change the bandwidth of every link, in bytes per second; None for unshaped links.

        Raises:
            ArgumentError: it is not positive.
            MeasurementError: the system refuses.
        """
        _check_bandwidth(bandwidth)
        fewest, most = _QUEUE_BYTES
        for name in self._namespaces:
            if bandwidth is None:
                with contextlib.suppress(MeasurementError):  # nothing to remove
                    _ip("netns", "exec", name, "tc", "qdisc", "del", "dev", _INTERFACE, "root")
                continue
            _ip(
                *("netns", "exec", name, "tc", "qdisc", "replace", "dev", _INTERFACE, "root", "tbf"),
                *("rate", f"{round(8 * bandwidth)}bit", "burst", str(_BURST_BYTES)),
                *("limit", str(min(max(round(_QUEUE_SECONDS * bandwidth), fewest), most))),
            )
        self.bandwidth = bandwidth

    def run(self, function: Callable[..., _T], *args: Any, timeout: float = 600.0) -> list[_T]:
        """What `function(*args)` returns on each rank; see `LocalRanks.run`."""
        return self._ranks.run(function, *args, timeout=timeout)

    def bytes_sent(self) -> list[int]:
        """Bytes that each rank has given to its link since the lab was built, with all headers."""
        return [
            int(_ip("netns", "exec", name, "cat", f"/sys/class/net/{_INTERFACE}/statistics/tx_bytes"))
            for name in self._namespaces
        ]

    def _build(self) -> None:
        _ip("netns", "add", self._bridge)
        _ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._bridge, "link", "set", "bridge", "up")
        for rank, name in enumerate(self._namespaces):
            port = f"port{rank}"
            _ip("netns", "add", name)
            _ip("link", "add", _INTERFACE, "netns", name, "type", "veth", "peer", "name", port, "netns", self._bridge)
            _ip("-n", self._bridge, "link", "set", port, "master", "bridge")
            _ip("-n", self._bridge, "link", "set", port, "up")
            _ip("-n", name, "address", "add", f"10.77.{rank // 250}.{rank % 250 + 1}/16", "dev", _INTERFACE)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", _INTERFACE, "up")

    def _remove(self) -> None:
        for name in (*self._namespaces, self._bridge):
            _delete(name)


def missing_for_lab() -> str | None:
    """Why this host cannot have a lab of shaped links; None if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "not run as root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"the command {tool} of iproute2 is not installed"
    name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}-trial"
    try:
        _ip("netns", "add", name)
        _ip("netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "tbf",
            "rate", "1mbit", "burst", "32kb", "latency", "50ms")  # fmt: skip
        _ip("-n", name, "link", "add", "bridge", "type", "bridge")
        _ip("-n", name, "link", "add", "left", "type", "veth", "peer", "name", "right")
    except MeasurementError as error:
        return error.message
    finally:
        _delete(name)
    return None


def _check_bandwidth(bandwidth: float | None) -> None:
    if bandwidth is not None and not 1e3 <= bandwidth < 1e12:
        raise ArgumentError("bandwidth", bandwidth, expected="bytes per second, 1e3 or more, or None")


def _ip(*words: str) -> str:
    result = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise MeasurementError(f"ip {' '.join(words[:6])}: {reason}")
    return result.stdout


def _delete(name: str) -> None:
    """Remove a namespace with what is in it, if it is there."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _sweep() -> None:
    """Remove the namespaces of processes that have died."""
    for path in Path("/run/netns").glob(f"{_PREFIX}-*"):
        owner = path.name.removeprefix(f"{_PREFIX}-").split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _delete(path.name)
