"""Seconds of CPU for the search of inter-operator schedules, against the published algorithm in Python.

The peer is the dynamic program of "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021, section 4) written
in Python from the paper: recursion over bit masks with a memo, endings through the chain decomposition, the costs
remembered by set. Both ask the same oracle, a model of two workers: a barrier, then the groups, the longest first, each
on the worker that is free first. Its seconds are part of both and shown apart; on hardware, measuring takes its place
and dominates. A third column has the same costs computed on the arrays of a batch, which the peer cannot use. The costs
found must be equal.

Operators take random times. Beside each search stand the baselines of the paper, the schedules without barriers on the
same two workers, and the bound that none can be shorter than, in the units of those times.

    python -m benchmarks.schedule_search [--quick] [--data FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from taut.compile.interop import (
    OperatorGraph,
    Schedule,
    Stages,
    exact_schedule,
    greedy,
    list_schedule,
    read_ios_graph,
    read_ios_schedule,
    search,
    sequential,
)
from taut.stats import fingerprint

DATA = Path(__file__).parents[2] / "shared" / "data" / "schedules" / "ios"
RANDWIRE = ("ws-16-4-0.75-2", "ws-32-4-0.75-3", "ws-32-4-0.75-4", "ws-32-4-0.75-5")
LARGE = "ws-320-20-0.75-x"
BARRIER = 0.02
SQUEEZENET = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 5), (4, 5)]
INCEPTION = [(0, 10), (1, 2), (1, 3), (2, 10), (3, 10), (4, 5), (5, 6), (5, 7), (6, 10), (7, 10), (8, 9), (9, 10)]
NASNET = [
    *((0, 2), (1, 3)),
    *((2, 4), (3, 5), (2, 6), (3, 7), (3, 8), (2, 9), (3, 10), (3, 11)),
    *((4, 12), (2, 12), (5, 13), (6, 13), (9, 14), (3, 14), (10, 15), (11, 15), (7, 16), (8, 16)),
    *((number, 17) for number in range(12, 17)),
]

Graphs = dict[str, list[OperatorGraph]]


class TwoWorkers:
    """The oracle: seconds of stages on two workers, with the CPU time that it took itself.

    Args:
        graph: the operators.
        durations: the time of each, (operators,).
        arrays: whether to compute the costs of a batch on its arrays.
    """

    def __init__(self, graph: OperatorGraph, durations: list[float], arrays: bool = False) -> None:
        self.durations = durations
        self.arrays = arrays
        self.spent = 0.0
        self.reach = np.array([[mask >> i & 1 for i in range(len(graph))] for mask in graph.reachable], np.float64)

    def __call__(self, stages: Stages) -> Any:
        if not self.arrays:
            return [self.cost(stage.groups) for stage in stages]
        start = time.thread_time()
        sums = (stages.members * self.durations) @ self.reach.T * stages.heads  # (stages, operators)
        sums = -np.sort(-sums, axis=1)[:, : int(stages.heads.sum(axis=1).max())]
        first, second = np.zeros((2, len(stages)))
        for seconds in sums.T:
            first, second = np.minimum(first, second) + seconds, np.maximum(first, second)
        self.spent += time.thread_time() - start
        return BARRIER + np.maximum(first, second)

    def cost(self, groups: tuple[tuple[int, ...], ...]) -> float:
        """The time of one stage."""
        start = time.thread_time()
        first = second = 0.0
        for seconds in sorted((sum(map(self.durations.__getitem__, group)) for group in groups), reverse=True):
            if first <= second:
                first += seconds
            else:
                second += seconds
        self.spent += time.thread_time() - start
        return BARRIER + max(first, second)


class PublishedSearch:
    """The search of the paper in Python.

    Args:
        graph: the operators.
        oracle: gives the time of a stage.
        r: most operators of a group.
        s: most groups of a stage.
    """

    def __init__(self, graph: OperatorGraph, oracle: TwoWorkers, r: int, s: int) -> None:
        self.oracle, self.r, self.s = oracle, r, s
        self.order = graph.order
        self.closures = graph.reachable
        self.chains = list(self._longest_chains(graph))
        self.latency: dict[int, float] = {}
        self.cost: dict[int, float] = {0: 0.0}
        self.choice: dict[int, int] = {}
        self.transitions = 0

    def run(self) -> float:
        """The cost of the cheapest schedule."""
        sys.setrecursionlimit(10_000)
        return self._schedule((1 << len(self.order)) - 1)

    def _schedule(self, state: int) -> float:
        known = self.cost.get(state)
        if known is not None:
            return known
        best = float("inf")
        for ending, heads in self._endings(state, 0, 0, ()):
            self.transitions += 1
            if ending not in self.latency:
                self.latency[ending] = self.oracle.cost(tuple(self._members(head, ending) for head in heads))
            cost = self._schedule(state & ~ending) + self.latency[ending]
            if cost < best:
                best, self.choice[state] = cost, ending
        self.cost[state] = best
        return best

    def _endings(self, state: int, first: int, taken: int, heads: tuple[int, ...]) -> Iterator[tuple[int, Any]]:
        for place in range(first, len(self.chains)):
            for head in self.chains[place]:
                if not state >> head & 1:
                    continue
                group = self.closures[head] & state
                if group & taken or group.bit_count() > self.r:
                    continue
                more = (*heads, head)
                yield taken | group, more
                if len(more) < self.s:
                    yield from self._endings(state, place + 1, taken | group, more)

    def _members(self, head: int, ending: int) -> tuple[int, ...]:
        group = self.closures[head] & ending
        return tuple(number for number in self.order if group >> number & 1)

    def _longest_chains(self, graph: OperatorGraph) -> Iterator[list[int]]:
        left = list(graph.order)
        while left:
            longest: dict[int, list[int]] = {}
            for number in reversed(left):
                behind = [longest[other] for other in longest if graph.reachable[number] >> other & 1]
                longest[number] = [number, *max(behind, key=len, default=[])]
            chain = max(longest.values(), key=len)
            yield chain
            left = [number for number in left if number not in chain]


def networks(data: Path, quick: bool) -> Graphs:
    """The blocks of each network; those of published files only where these are there."""
    found: Graphs = {
        "SqueezeNet block": [OperatorGraph.from_edges(6, SQUEEZENET)],
        "Inception-v3 last block": [OperatorGraph.from_edges(11, INCEPTION)],
        "NASNet-A cell": [OperatorGraph.from_edges(18, NASNET)],
    }
    if data.is_dir():
        blocks = read_ios_schedule(data / "specialization" / "128.json").blocks
        found["Inception-v3, batch 128"] = [block.graph for block in blocks]
        names = RANDWIRE[:1] if quick else RANDWIRE
        found[f"RandWire, {len(names)} stages"] = [read_ios_graph(data / "randwire" / f"{name}.txt") for name in names]
        if not quick:
            found["RandWire, 320 nodes"] = [read_ios_graph(data / "randwire" / f"{LARGE}.txt")]
    else:
        print(f"{data}: not found, so without the published graphs")
    return found


def measure(name: str, graphs: list[OperatorGraph], r: int | None, s: int | None, repeats: int) -> dict[str, Any]:
    """One line of the table: CPU seconds of both, the least of the repeats; fresh times of operators in each."""
    row: dict[str, Any] = {"network": name, "operators": sum(map(len, graphs)), "r": r, "s": s}
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "arrays": [], "published": []}
    found: list[Schedule] = []
    durations: list[list[float]] = []
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        durations = [generator.uniform(0.1, 1, len(graph)).tolist() for graph in graphs]
        costs: dict[str, list[float | None]] = {}
        for side in ("ours", "arrays"):
            oracles = [TwoWorkers(*pair, arrays=side == "arrays") for pair in zip(graphs, durations, strict=True)]
            start = time.thread_time()
            found = [
                search(graph, oracle, r, s, ["concurrent"], max_part_size=len(graph))
                for graph, oracle in zip(graphs, oracles, strict=True)
            ]
            seconds[side].append((time.thread_time() - start, sum(oracle.spent for oracle in oracles)))
            costs[side] = [schedule.cost for schedule in found]

        oracles = [TwoWorkers(*pair) for pair in zip(graphs, durations, strict=True)]
        start = time.thread_time()
        peers = [
            PublishedSearch(graph, oracle, r or len(graph), s or len(graph))
            for graph, oracle in zip(graphs, oracles, strict=True)
        ]
        costs["published"] = [peer.run() for peer in peers]
        seconds["published"].append((time.thread_time() - start, sum(oracle.spent for oracle in oracles)))

        for side in ("ours", "arrays"):
            assert np.allclose(np.array(costs[side], float), np.array(costs["published"], float), rtol=1e-12), side
        assert [schedule.transitions for schedule in found] == [peer.transitions for peer in peers]
    row["transitions"] = sum(schedule.transitions for schedule in found)
    row["states"] = sum(schedule.states for schedule in found)
    row["costs"] = sum(schedule.requests for schedule in found)
    for side, pairs in seconds.items():
        row[f"{side}_seconds"], row[f"{side}_oracle_seconds"] = min(pairs)
    row["ratio"] = row["published_seconds"] / row["ours_seconds"]
    row["ratio_arrays"] = row["published_seconds"] / row["arrays_seconds"]
    row["search"] = sum(schedule.cost or 0 for schedule in found)
    return row | schedules(graphs, durations)


def schedules(graphs: list[OperatorGraph], durations: list[list[float]]) -> dict[str, Any]:
    """Times of the other schedules of the same operators, summed over the blocks."""
    row: dict[str, Any] = dict.fromkeys(("sequential", "greedy", "list", "exact", "bound"), 0.0)
    row["blocks_optimal"] = 0
    for graph, times in zip(graphs, durations, strict=True):
        oracle = TwoWorkers(graph, times)
        table = np.stack([times, np.full(len(graph), np.inf)], axis=1)
        listed = list_schedule(graph, table)
        exact = exact_schedule(graph, table, node_limit=1_000_000) if len(graph) <= 64 else listed
        row["sequential"] += sequential(graph, oracle, ["concurrent"]).cost or 0
        row["greedy"] += greedy(graph, oracle).cost or 0
        row["list"] += listed.seconds
        row["exact"] += exact.seconds
        row["bound"] += exact.bound.seconds
        row["blocks_optimal"] += exact.optimal
    return row


def show(row: dict[str, Any], blocks: int) -> None:
    """Print one line of each table."""
    pruning = "unpruned" if row["r"] is None else f"r={row['r']} s={row['s']}"
    print(
        f"\n{row['network']}, {row['operators']} operators, {pruning}: {row['states']:,} states, "
        f"{row['transitions']:,} transitions, {row['costs']:,} costs\n"
        f"  ours {row['ours_seconds']:9.4f} s (oracle {row['ours_oracle_seconds']:.4f})"
        f"  published {row['published_seconds']:9.3f} s (oracle {row['published_oracle_seconds']:.3f})"
        f"  ratio {row['ratio']:.1f}\n"
        f"  on arrays {row['arrays_seconds']:.4f} s (oracle {row['arrays_oracle_seconds']:.4f})"
        f"  ratio {row['ratio_arrays']:.1f}\n"
        f"  sequential {row['sequential']:.3f}  greedy {row['greedy']:.3f}  search {row['search']:.3f}"
        f"  without barriers: list {row['list']:.3f}, exact {row['exact']:.3f} "
        f"({row['blocks_optimal']} of {blocks} proved)  bound {row['bound']:.3f}"
        f"  gaps {row['search'] / row['bound'] - 1:.1%} and {row['exact'] / row['bound'] - 1:.1%}",
        flush=True,
    )


def main() -> None:
    """Run the searches and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smaller networks, once")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of published graphs and schedules")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    rows = []
    for name, graphs in networks(options.data, options.quick).items():
        large = max(map(len, graphs)) > 64
        for r, s in ((3, 8),) if large else ((None, None), (3, 8)):
            rows.append(measure(name, graphs, r, s, 1 if options.quick or large else 3))
            show(rows[-1], len(graphs))
    if options.json:
        report = {"host": fingerprint().to_dict(), "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
