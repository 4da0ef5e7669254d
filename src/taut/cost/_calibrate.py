"""Peaks of this host: measured once, then remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from taut.cost._peaks import LEVELS, Peaks, Rate
from taut.cost._specimens import Specimen, specimens
from taut.cost._store import Record, Store
from taut.errors import ArgumentError
from taut.graph import Builder, Interpreter, TensorType
from taut.kernels import measure_peaks
from taut.stats import measure

_REVISION = 1  # to be raised when the specimens change: kept peaks are then measured again
_SECONDS = 0.02
_FEWEST_CALLS, _MOST_CALLS = 8, 1000
_CHAIN = 64
_PARALLEL_OVERHEAD = 1e-4  # beginning a parallel region takes some ten microseconds; more is other processes' work
_PATIENCE = 600.0
_TINY = 1.0  # operations or bytes a second: what a starved benchmark reports must still be a figure


def calibrate(*, threads: int | None = None, store: Store | None = None, refresh: bool = False) -> Peaks:
    """The peaks of this host at a thread count, from the store or measured now (a few seconds).

    Peaks of several threads that came out below those of one, since the host was busy, are lifted to those of one,
    and measured again ten minutes later.

    Args:
        threads: threads within one operator; by default `torch.get_num_threads()`.
        store: where the result is kept; by default the user's store.
        refresh: measure again even if a result is kept.

    Raises:
        ArgumentError: if `threads` is not positive.
        StorageError: if the result cannot be kept.
    """
    count = torch.get_num_threads() if threads is None else threads
    if count < 1:
        raise ArgumentError("threads", threads, expected="1 or more")
    kept = store if store is not None else Store()
    key = f"peaks revision={_REVISION} threads={count}"
    found = None if refresh else kept.latest([key]).get(key)
    if found is not None and not _worth_another_try(found):
        with contextlib.suppress(ArgumentError):  # kept by a version with other fields: measure again
            return Peaks.from_dict(found)
    measured = peaks = _measure(count)
    if count > 1:
        peaks = _bounded(measured, calibrate(threads=1, store=kept, refresh=refresh))
    disturbed = peaks.flops != measured.flops  # bandwidths may truly not grow with threads
    kept.append({key: peaks.to_dict() | ({"disturbed_at": time.time()} if disturbed else {})})
    return peaks


def _worth_another_try(record: Record) -> bool:
    """Whether the host was busy when the record was made, and has had time to become quiet."""
    disturbed = record.get("disturbed_at")
    return isinstance(disturbed, float) and not 0 <= time.time() - disturbed < _PATIENCE


def _measure(threads: int) -> Peaks:
    native = {name: max(value, _TINY) for name, value in measure_peaks(threads).items()}
    flops = {name: native[name] for name in ("fp32", "bf16", "int8") if name in native}
    with thread_count(threads), torch.inference_mode():
        dispatch = _dispatch()
        rates = {name: _rate(pair, dispatch["eager"]) for name, pair in specimens("bf16" in flops).items()}
    return Peaks(
        threads=threads,
        flops=flops,
        bandwidth={name: native[name] for name in LEVELS if name in native},
        cache_bytes=cache_sizes(threads),
        dispatch=dispatch,
        rates=rates,
    )


def _bounded(peaks: Peaks, single: Peaks) -> Peaks:
    """Several threads reach no less than one of them, and operators no more than each of them alone together.

    It only seems otherwise while other processes use their cores.
    """

    def best(many: Mapping[str, float], one: Mapping[str, float]) -> dict[str, float]:
        return {name: max(value, one.get(name, 0.0)) for name, value in many.items()}

    def rate(many: Rate, one: Rate) -> Rate:
        undisturbed = many.overhead <= one.overhead + _PARALLEL_OVERHEAD
        per_second = min(max(many.per_second, one.per_second), peaks.threads * one.per_second)
        return Rate(many.overhead if undisturbed else one.overhead, per_second)

    rates = {name: rate(value, single.rates.get(name, value)) for name, value in peaks.rates.items()}
    flops, bandwidth = best(peaks.flops, single.flops), best(peaks.bandwidth, single.bandwidth)
    return dataclasses.replace(peaks, flops=flops, bandwidth=bandwidth, rates=rates)


@contextlib.contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Runs torch's operators with that many threads, then restores the former count."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of many single calls: a limit is what nothing else disturbed.

    Single calls rather than blocks of them, since on a busy host a block is long enough to be interrupted each time.
    """
    first = min(measure(run, min_time=0, repeats=3).seconds)
    repeats = min(max(round(_SECONDS / first), _FEWEST_CALLS), _MOST_CALLS)
    return min(first, *measure(run, min_time=0, warmup=0, repeats=repeats).seconds)


def _dispatch() -> dict[str, float]:
    """Seconds a call of an operator that has next to nothing to do."""
    scalar = torch.ones(1)
    builder = Builder()
    kind = TensorType((1,), torch.float32)
    value = builder.input("x", kind)
    for _ in range(_CHAIN):
        value = builder.add("aten.relu.default", value, outputs=kind)
    interpreter = Interpreter(builder.finish(value))

    def eager() -> None:
        y = scalar
        for _ in range(_CHAIN):
            y = torch.relu(y)

    return {"eager": fastest(eager) / _CHAIN, "interpreter": fastest(lambda: interpreter(scalar)) / _CHAIN}


def _rate(pair: tuple[Specimen, Specimen], dispatch: float) -> Rate:
    """The line through two points; the overhead is what exceeds the call of a trivial operator."""
    (little, run_little), (much, run_much) = pair
    short, long = fastest(run_little), fastest(run_much)
    slope = max((long - short) / (much - little), 0.4 * long / much)  # the large call is not all overhead
    return Rate(overhead=max(short - little * slope - dispatch, 0.0), per_second=1.0 / slope)


def cache_sizes(threads: int) -> dict[str, int]:
    """Bytes of "l1", "l2", "l3" that `threads` threads have together; empty where the system does not say."""
    sizes: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size, shared = (
                (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
            )
            capacity = int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and level in "123":
            sizes[f"l{level}"] = capacity * -(-threads // _cores(shared))
    return sizes


def _cores(listed: str) -> int:
    """How many processors a list such as "0-3,8" names."""
    ends = (part.split("-") for part in listed.split(",") if part)
    return max(sum(int(end[-1]) - int(end[0]) + 1 for end in ends), 1)
