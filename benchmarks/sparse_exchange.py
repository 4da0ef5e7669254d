"""The exchange of sparse gradients against Gloo's own, on one host and over links of a lab: 1 % of the entries each.

Ours is `gather_sparse`: "plain" (int32 indices, float32 values), "compact" (coded indices and bfloat16 values, rounding
included; about 3.5 times fewer bytes) and "compact, fp32" (the same in float32). Values are those that a selection
takes: the largest 1 % of log-normal magnitudes, which those of gradients are near (Chmiel et al., "Neural gradients are
near-lognormal", 2021); in bfloat16 they take 10.0 bits, those of the gradients of decision 0024 9.8 to 10.1. The peers:

- sparse all-reduce: `dist.all_reduce` of a COO tensor, 12 bytes an entry; what it returns is the sum.
- two all-gathers: what users write, int64 indices and float32 values in `dist.all_gather`, both padded already.
- same bytes: the 8 bytes an entry that "plain" sends, in one `dist.all_gather`; lengths known, nothing packed.

Wall time, the slowest rank of each repetition; arms take turns in random order, a few calls in a row as in a training.
All ranks begin at one moment. Each arm has a process group, and so connections, of its own: a connection remembers for
seconds what the arm before lost.
Ratios are medians of paired repetitions with a 95 % interval. "dense" adds the sum as a dense tensor, which the sparse
all-reduce spares the others; no rank begins with it before all have their entries, or where ranks share cores the sums
of some would count as exchange of the others. The limit is the bytes of the plain form over the link. Unshaped, all
ranks are on one host: ours share memory, the peers use loopback. The shaped links need root (network namespaces).

    python -m benchmarks.sparse_exchange [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from taut.distributed import LinkLab, LocalRanks, gather_sparse, missing_for_lab
from taut.stats import fingerprint, quantile_interval, quietness

RATIO = 0.01
RATES = (None, 500, 100)  # Mbit/s
ELEMENTS = (1_000_000, 5_000_000, 25_000_000)
ROUNDS = {1_000_000: 15, 5_000_000: 8, 25_000_000: 5}
MEETING = 3e-3  # seconds in which all ranks have heard of the moment to begin
CALLS = 3  # of an arm in a row that count; one more comes before them
OURS = ("plain", "compact", "compact, fp32")
PEERS = ("sparse all-reduce", "two all-gathers", "same bytes")
TARGETS = {"sparse all-reduce": 5.0, "two all-gathers": 3.0, "same bytes": 3.0}


def main() -> int:
    """Measure every cell; exit code 1 if every form of ours misses a target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 ranks, 1 M elements, 500 Mbit/s and unshaped")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    missing = missing_for_lab()
    if missing is not None:
        print(f"one host only: {missing}", file=sys.stderr)
    rates = (None,) if missing else RATES[:2] if options.quick else RATES
    rows = []
    for ranks, rate in itertools.product((2,) if options.quick else (2, 4), rates):
        with LocalRanks(ranks) if rate is None else LinkLab(ranks, bandwidth=rate * 1e6 / 8) as group:
            for elements in ELEMENTS[:1] if options.quick else ELEMENTS:
                times = group.run(measure_arms, elements, ROUNDS[elements])
                rows.append(row := summarise(ranks, rate, elements, times))
                show(row)
    if options.json is not None:
        document = {"fingerprint": fingerprint().to_dict(), "quietness": str(quietness()), "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(not all(reached for row in rows for reached in row["best"].values()))


def measure_arms(elements: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """On one rank: for each arm, seconds of the exchange and seconds of the dense sum, by repetition."""
    groups: dict[str, Any] = {name: dist.new_group() for name in (*OURS, *PEERS)}
    arms = make_arms(elements, groups)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    dense = torch.zeros(elements)
    for turn in range(rounds):
        for name in random.Random(turn).sample(sorted(arms), len(arms)):  # the same order on all ranks
            exchange, finish = arms[name]
            for call in range(1 + CALLS):
                indices, values = random_entries(elements, seed=(turn * (1 + CALLS) + call) * 97 + dist.get_rank())
                narrow = indices.to(torch.int32)
                dense.zero_()
                meet()
                exchanged, result = timed(exchange, indices, narrow, values)
                dist.barrier()
                finished, _ = timed(finish, result, dense)
                if call:  # the first sets a connection up, or finds it idle
                    taken[name].append((exchanged, finished))
    for group in groups.values():
        dist.destroy_process_group(group)
    return taken


def meet() -> None:
    """Let all ranks go on at one moment; they are on one host and share its clock."""
    moment = torch.tensor(time.perf_counter() + MEETING, dtype=torch.float64)
    dist.all_reduce(moment, dist.ReduceOp.MAX)
    spare_cores = dist.get_world_size() <= len(os.sched_getaffinity(0))
    while (left := float(moment) - time.perf_counter()) > 0:
        time.sleep(0 if spare_cores else left)


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of a call, and its result."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def random_entries(elements: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascending int64 indices of a share of the elements, and values: the largest of log-normal magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    kept = round(RATIO * elements)
    indices = torch.randint(0, elements, (kept + kept // 50,), generator=generator).unique()[:kept]
    above = RATIO * torch.rand(indices.numel(), generator=generator, dtype=torch.float64)  # the share of larger ones
    magnitudes = torch.exp(math.sqrt(2) * torch.special.erfinv(1 - 2 * above))
    signs = torch.randint(0, 2, (indices.numel(),), generator=generator) * 2 - 1
    return indices, (signs * magnitudes).float()


def make_arms(
    elements: int, groups: Mapping[str, Any]
) -> dict[str, tuple[Callable[..., Any], Callable[[Any, torch.Tensor], object]]]:
    """Each arm: the exchange of int64 indices, int32 indices and values, and what makes its result dense."""
    ranks = dist.get_world_size()

    def add_all(entries: list[tuple[torch.Tensor, torch.Tensor]], dense: torch.Tensor) -> None:
        for indices, values in entries:
            dense.index_add_(0, indices, values.float())

    def plain(_: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> Any:
        return gather_sparse(indices, values, groups["plain"])

    def compact(_: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> Any:
        return gather_sparse(indices, values.bfloat16(), groups["compact"], coding="compact")

    def compact_fp32(_: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> Any:
        return gather_sparse(indices, values, groups["compact, fp32"], coding="compact")

    def sparse(indices: torch.Tensor, _: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        entries = torch.sparse_coo_tensor(indices[None], values, (elements,), check_invariants=False, is_coalesced=True)
        dist.all_reduce(entries, group=groups["sparse all-reduce"])
        return entries

    def two(indices: torch.Tensor, _: torch.Tensor, values: torch.Tensor) -> Any:
        all_indices = [torch.empty_like(indices) for _ in range(ranks)]
        all_values = [torch.empty_like(values) for _ in range(ranks)]
        dist.all_gather(all_indices, indices, groups["two all-gathers"])
        dist.all_gather(all_values, values, groups["two all-gathers"])
        return list(zip(all_indices, all_values, strict=True))

    def same(_: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> Any:
        packed = torch.cat([indices, values.view(torch.int32)])
        rows = [torch.empty_like(packed) for _ in range(ranks)]
        dist.all_gather(rows, packed, groups["same bytes"])
        halves = (row.split(len(values)) for row in rows)
        return [(first, second.view(torch.float32)) for first, second in halves]

    def add_sparse(entries: torch.Tensor, dense: torch.Tensor) -> None:
        dense.add_(entries)

    return {
        "plain": (plain, add_all),
        "sparse all-reduce": (sparse, add_sparse),
        "compact": (compact, add_all),
        "two all-gathers": (two, add_all),
        "compact, fp32": (compact_fp32, add_all),
        "same bytes": (same, add_all),
    }


def summarise(
    ranks: int, rate: int | None, elements: int, by_rank: list[dict[str, list[tuple[float, float]]]]
) -> dict[str, Any]:
    """Medians and ratios of one cell."""
    slowest = {name: np.array([one[name] for one in by_rank]).max(axis=0) for name in by_rank[0]}  # (repeats, 2)
    ratios = {}
    for ours in OURS:
        for peer in PEERS:
            found = quantile_interval(slowest[peer][:, 0] / slowest[ours][:, 0], 0.5)
            ratios[f"{ours} / {peer}"] = [found.estimate, found.low, found.high]
    limit = None if rate is None else (ranks - 1) * 8 * RATIO * elements / (rate * 1e6 / 8)
    return {
        "ranks": ranks,
        "mbit_per_second": rate,
        "elements": elements,
        "exchange_seconds": {name: float(np.median(values[:, 0])) for name, values in slowest.items()},
        "dense_seconds": {name: float(np.median(values.sum(axis=1))) for name, values in slowest.items()},
        "limit_seconds": limit,
        "ratios": ratios,
        "best": {
            peer: max(ratios[f"{ours} / {peer}"][0] for ours in OURS) >= target for peer, target in TARGETS.items()
        },
    }


def show(row: dict[str, Any]) -> None:
    """Print one cell."""
    rate, limit = row["mbit_per_second"], row["limit_seconds"]
    link = "one host" if rate is None else f"{rate} Mbit/s"
    bound = "" if limit is None else f", limit of 8 B an entry {limit * 1e3:.1f} ms"
    print(f"{row['ranks']} ranks, {link}, {row['elements'] / 1e6:g} M elements, {RATIO:.0%}{bound}")
    for name, seconds in row["exchange_seconds"].items():
        versus = ""
        if name in OURS:
            parts = (f"{peer} {_ratio(row['ratios'][f'{name} / {peer}'])}" for peer in PEERS)
            versus = "   " + "; ".join(parts)
        print(f"  {name:18s} {seconds * 1e3:8.2f} ms, dense {row['dense_seconds'][name] * 1e3:8.2f} ms{versus}")
    for peer, reached in row["best"].items():
        if not reached:
            print(f"  target {TARGETS[peer]:g}x over {peer}: not reached")
    sys.stdout.flush()


def _ratio(values: list[float]) -> str:
    estimate, low, high = values
    return f"{estimate:.2f}x [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
