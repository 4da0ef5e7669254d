"""Measuring what advice needs: collectives over the links, encoders, and what communication does to computing."""

from __future__ import annotations

import itertools
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from taut.cost import thread_count
from taut.distributed._candidates import CANDIDATES
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._local_ranks import LocalRanks
from taut.distributed._profile import Profile
from taut.distributed._step_time import EncodeCost
from taut.distributed._wire import Coding, gather_uneven, pack_entries, unpack_entries
from taut.errors import ArgumentError, MeasurementError
from taut.hardware import DRAWS, CollectiveTiming, LinkModel, fit_links, fit_times, measured_bandwidth
from taut.stats import available_cores, fingerprint, quietness

# Below a few packets a link costs latency only. Larger messages follow the line of these.
SIZES = (256, 2**16, 2**18, 2**20, 2**22, 2**24)
_MOST_SECONDS = 1.0  # of a collective: on slow links the larger messages tell nothing new
_REPEATS = 5
_MOST_SLOWDOWN = 2.0  # of computing that shares its core evenly with communication
_ENCODED = (((512, 512),), ((1024, 1024),) * 2)  # shapes of the gradients that encoders are timed on
_DECODED_RANKS = (2, 8)

Progress = Callable[[str, float], None]


class Measured(NamedTuple):
    """What the ranks of a group measure together; the same on each of them.

    Attributes:
        timings: of collectives.
        alone: seconds of a computation on every rank at once.
        beside: seconds of the same computation while gradients are reduced.
        reduced: bytes that were reduced meanwhile.
    """

    timings: list[CollectiveTiming]
    alone: float
    beside: float
    reduced: float


def probe_group(progress: Progress | None = None, *, bandwidth: float | None = None) -> Profile | None:
    """Measure on the hosts of the default process group, e.g. under torchrun; every rank calls it.

    Args:
        progress: told what is being done and the share that is done.
        bandwidth: of each rank's link in bytes per second, if it is known; by default it is measured.

    Returns:
        The profile on rank 0, None on the others.

    Raises:
        MeasurementError: there is one rank only, or the link is as fast as loopback and its bandwidth was not given.
    """
    say = progress or _silent
    if dist.get_world_size() < 2:
        raise MeasurementError("one rank has no link to probe", expected="two ranks or more")
    crowding = max(1.0, ranks_on_host() / available_cores())
    say("timing collectives over the links", 0.0)
    measured = measure_group(bandwidth, crowding)
    try:
        return _compare_with_loopback(measured, bandwidth, crowding, say) if dist.get_rank() == 0 else None
    finally:
        dist.barrier()  # the others wait for rank 0, also if it fails: its error is the one to be seen


def probe_host(ranks: int = 2, progress: Progress | None = None) -> Profile:
    """Measure on this host alone, over loopback: what software and encoders cost, with the formulas for the link.

    Args:
        ranks: processes that are started for it.
        progress: told what is being done and the share that is done.

    Raises:
        ArgumentError: fewer than two ranks.
    """
    if ranks < 2:
        raise ArgumentError("ranks", ranks, expected="2 or more")
    say = progress or _silent
    crowding = max(1.0, ranks / available_cores())
    say("timing collectives on this host", 0.0)
    with LocalRanks(ranks) as group:
        measured = group.run(measure_group, None, crowding)[0]
    return _profile(fit_links(measured.timings), measured, None, ranks, crowding, say)


def measure_group(bandwidth: float | None, crowding: float) -> Measured:
    """What every rank of the default group measures with the others; see `CollectiveTiming` for the arguments."""
    return Measured(time_collectives(bandwidth, crowding), *_time_beside())


def time_collectives(
    bandwidth: float | None, crowding: float, sizes: Sequence[int] = SIZES, repeats: int = _REPEATS
) -> list[CollectiveTiming]:
    """Time the collectives of a communicator on the default group; the slowest rank counts.

    Args:
        bandwidth: of the links, as it goes into the timings.
        crowding: likewise.
        sizes: bytes of the buffers; larger ones are left out where they would take long.
        repeats: of each; one more comes before them.
    """
    ranks = dist.get_world_size()
    timings = []
    for collective, run in _COLLECTIVES.items():
        for size in sizes:
            tensor = torch.zeros(size // 4)
            seconds = [_slowest(lambda run=run, tensor=tensor: run(tensor)) for _ in range(repeats + 1)][1:]
            timings += [CollectiveTiming(collective, size, ranks, bandwidth, one, crowding) for one in seconds]
            if median(seconds) * 4 > _MOST_SECONDS:
                break
    return timings


def time_encoders(progress: Progress | None = None, names: Sequence[str] = tuple(CANDIDATES)) -> dict[str, EncodeCost]:
    """Time what the compressors of `CANDIDATES` do beside sending, on this thread, whatever the ranks are.

    That of fp32 is nothing: plain DistributedDataParallel has no hook.
    """
    say = progress or _silent
    costs = {}
    for place, name in enumerate(names):
        say(name, place / len(names))
        costs[name] = EncodeCost(np.zeros((1 + DRAWS, 3))) if name == "fp32" else time_encoder(CANDIDATES[name])
    return costs


def time_encoder(compressor: Compressor, repeats: int = 5) -> EncodeCost:
    """Time what a compressor does beside sending, on one thread, by exchanges of random gradients of several sizes.

    What counts is the processor time of the thread, so that other processes of the host do not disturb it.

    Args:
        compressor: which.
        repeats: of each set-up; one more comes before them.
    """
    rows, seconds = [], []
    with thread_count(1):
        for shapes, ranks in itertools.product(_ENCODED, _DECODED_RANKS):
            sizes = [torch.Size(shape).numel() for shape in shapes]
            elements = sum(sizes)
            communicator = _Echo(ranks)
            memory: Memory = {}
            for repeat in range(repeats + 1):
                pieces = torch.randn(elements).split(sizes)  # as they lie in a bucket
                gradients = [Gradient(str(place), piece.view(shapes[place])) for place, piece in enumerate(pieces)]
                before, start = communicator.seconds, time.thread_time()
                compressor.exchange(gradients, communicator, memory)
                taken = time.thread_time() - start - (communicator.seconds - before)
                if repeat:
                    rows.append((len(shapes), elements, elements * ranks))
                    seconds.append(max(taken, 1e-9))
    return EncodeCost(fit_times(np.array(rows, dtype=np.float64), np.array(seconds)).coefficients)


def ranks_on_host() -> int:
    """Ranks of the default group on this host: what torchrun says, else those with this host's name."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    names: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(names, platform.node())
    return names.count(platform.node())


def _compare_with_loopback(measured: Measured, bandwidth: float | None, crowding: float, say: Progress) -> Profile:
    say("timing collectives on this host alone", 0.4)
    with LocalRanks(2) as pair:
        loopback = pair.run(time_collectives, None, max(1.0, 2 / available_cores()))[0]
    found = bandwidth if bandwidth is not None else measured_bandwidth(measured.timings, fit_links(loopback))
    over_link = [replace(one, bandwidth=found) for one in measured.timings]
    return _profile(fit_links([*loopback, *over_link]), measured, found, dist.get_world_size(), crowding, say)


def _profile(
    links: LinkModel, measured: Measured, bandwidth: float | None, ranks: int, crowding: float, say: Progress
) -> Profile:
    software = float(links.software("all_reduce", measured.reduced, ranks)[0]) * crowding
    slowdown = max(1.0, (measured.beside - software) / measured.alone)
    quiet = quietness()
    doubts = [] if quiet.quiet else [f"the machine was not quiet: {'; '.join(quiet.reasons)}"]
    if slowdown > _MOST_SLOWDOWN:
        doubts.append(f"computing took {slowdown:.1f} times as long beside communication, as if other work had run too")
    costs = time_encoders(lambda name, share: say(f"timing {name}", 0.5 + share / 2))
    return Profile(links, costs, slowdown, bandwidth, ranks, fingerprint().to_dict(), tuple(doubts))


def _time_beside(seconds: float = 0.3) -> tuple[float, float, float]:
    """Seconds of a computation alone and beside all-reduces, and the bytes that were reduced in the meantime."""
    # Few large calls: each waits for the interpreter's lock, which a backward pass does without.
    left, right, product = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.empty(1024, 1024)

    def compute(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            torch.mm(left, right, out=product)
        return time.perf_counter() - start

    compute(1)
    (calls,) = _agreed(max(1, round(2 * seconds / max(compute(2), 1e-6))))
    alone, beside = [], []
    tensor = torch.zeros(2**18)
    for _ in range(3):
        dist.barrier()
        alone.append(compute(calls))
        rounds = 0
        dist.barrier()
        start = time.perf_counter()
        done = threading.Event()
        taken: list[float] = []

        def work(done: threading.Event = done, taken: list[float] = taken) -> None:
            taken.append(compute(calls))
            done.set()

        worker = threading.Thread(target=work)
        worker.start()
        # Every rank has to reduce as often as the others: they go on until the last of them has computed.
        busy = torch.ones(1)
        while busy.item() > 0:
            dist.all_reduce(tensor)
            rounds += 1
            busy.fill_(0.0 if done.is_set() else 1.0)
            dist.all_reduce(busy, op=dist.ReduceOp.MAX)
        worker.join()
        beside.append((taken[0], rounds * tensor.nbytes * min(1.0, taken[0] / (time.perf_counter() - start))))
    # What else the host does only adds: the fastest are the least disturbed.
    return tuple(_agreed(min(alone), *min(beside)))


def _agreed(*values: float) -> list[Any]:
    """The largest of each value over the ranks."""
    told = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return [type(value)(one) for value, one in zip(values, told.tolist(), strict=True)]


def _slowest(run: Callable[[], object]) -> float:
    dist.barrier()
    start = time.perf_counter()
    run()
    return _agreed(time.perf_counter() - start)[0]


def _all_to_all(tensor: torch.Tensor) -> None:
    ranks = dist.get_world_size()
    part = tensor[: tensor.numel() // ranks * ranks]
    dist.all_to_all_single(torch.empty_like(part), part)


_COLLECTIVES: dict[str, Callable[[torch.Tensor], object]] = {
    "all_reduce": dist.all_reduce,
    "all_gather": partial(gather_uneven, network=True),  # a profile is about links
    "all_to_all": _all_to_all,
}


class _Echo:
    """A communicator of many ranks that all have what this one has; it knows how long it took itself."""

    def __init__(self, size: int) -> None:
        self.rank, self.size = 0, size
        self.sent = 0.0
        self.seconds = 0.0

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """The mean over ranks is what a compressor makes of the sum."""
        with self._own_time():
            tensor *= self.size

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """One tensor many times."""
        with self._own_time():
            return torch.stack([tensor] * self.size)

    def all_gather_uneven(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """One tensor many times."""
        with self._own_time():
            return [tensor.clone() for _ in range(self.size)]

    def all_to_all(self, pieces: list[torch.Tensor]) -> list[torch.Tensor]:
        """The piece for this rank many times."""
        with self._own_time():
            return [pieces[0].clone() for _ in range(self.size)]

    def gather_sparse(
        self, indices: torch.Tensor, values: torch.Tensor, *, coding: Coding = "plain"
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The same entries many times; packing and unpacking them is the compressor's."""
        packed = pack_entries(indices, values, coding)
        with self._own_time():
            rows = [packed.clone() for _ in range(self.size)]
        return [unpack_entries(row, indices.numel(), values.dtype, coding) for row in rows]

    @contextmanager
    def _own_time(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.seconds += time.thread_time() - start


def _silent(doing: str, share: float) -> None:
    """Nobody wants to know."""
