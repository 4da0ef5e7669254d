"""Networks of many small operators at batch 1 on a GPU: ours on streams beside eager and torch.compile.

Ours is what `taut.compile.schedule_streams` keeps, captured in one CUDA graph. The arms take turns in blocks of device
time; the ratio to a peer is the median over the rounds of the peer's time by ours in the same round, with a 95 %
interval. Beside eager and torch.compile (reduce-overhead and max-autotune) stands a CUDA graph of the sequential
program, which tells what the streams add.

Without a CUDA device it says so and ends.

    python -m benchmarks.stream_schedules [--quick] [--only CASE...] [--graphs FOLDER] [--dtype TYPE] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._branchy_networks import NETWORKS, network
from taut.compile import StreamedModel, schedule_streams
from taut.compile.scheduling import CudaStreams
from taut.errors import ArgumentError
from taut.stats import fingerprint, quantile_interval

OURS, GRAPH = "taut streams", "CUDA graph"
MODES = ("reduce-overhead", "max-autotune")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BLOCK = 5e-3  # seconds
BUDGET = 60.0  # seconds to find a schedule
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-1}


def arms(module: torch.nn.Module, x: torch.Tensor, streams: CudaStreams) -> tuple[dict[str, Callable[[], Any]], Any]:
    """What is timed by name, all on the same input; and our schedule."""
    ours = schedule_streams(module, (x,), device=streams, budget=BUDGET)
    graph = StreamedModel(ours.graph, device=streams)
    made: dict[str, Callable[[], Any]] = {
        OURS: lambda: ours(x),
        GRAPH: lambda: graph(x),
        "eager": lambda: module(x),
    }
    for mode in MODES:
        compiled = torch.compile(module, mode=mode)
        made[f"torch.compile {mode}"] = lambda compiled=compiled: compiled(x)
    return made, ours.schedule


def measure(name: str, graphs: str, dtype: str, rounds: int, streams: CudaStreams) -> dict[str, Any]:
    """Seconds of each arm on one network, by round."""
    module, shape = network(name, graphs)
    module = module.to(streams.device, DTYPES[dtype])
    x = torch.randn(shape, device=streams.device, dtype=DTYPES[dtype])
    with torch.inference_mode():
        expected = module(x)
        runs, schedule = arms(module, x, streams)
        times: dict[str, list[float]] = {each: [] for each in runs}
        counts = {}
        for each, run in runs.items():
            difference = float((run() - expected).abs().max())
            if difference > TOLERANCE[dtype] * max(1.0, float(expected.abs().max())):
                raise ValueError(f"{each} differs from eager by {difference}")
            streams.time(run, 10)
            counts[each] = max(3, int(BLOCK / (streams.time(run, 10) / 10)))
        order = list(runs)
        draw = random.Random(0)
        for _ in range(rounds):
            draw.shuffle(order)
            for each in order:
                streams.time(runs[each], 2)
                times[each].append(streams.time(runs[each], counts[each]) / counts[each])
    document = schedule.to_dict()
    del document["timelines"]
    return {"case": name, "times": times, "schedule": document}


def compare(row: dict[str, Any]) -> None:
    """Add the figures that follow from the times."""
    times = row["times"]
    row["seconds"] = {each: {"min": min(own), "median": statistics.median(own)} for each, own in times.items()}
    row["ratios"] = {}
    for each, own in times.items():
        if each != OURS:
            found = quantile_interval([peer / mine for peer, mine in zip(own, times[OURS], strict=True)], 0.5)
            row["ratios"][each] = dataclasses.asdict(found)


def show(row: dict[str, Any]) -> None:
    """Print one network."""
    schedule = row["schedule"]
    print(f"{row['case']}: {schedule['operators']} operators, kept {schedule['kept']} of", end="")
    print(
        "".join(f" {one['name']} {1e6 * one['measured_seconds']:.1f}" for one in schedule["candidates"]), "us a replay"
    )
    print(f"  bound {1e6 * schedule['bound']:.1f} us, gap {100 * schedule['gap']:+.0f} %")
    for each, found in row["seconds"].items():
        line = f"  {each:30s} {1e6 * found['min']:9.1f} us min {1e6 * found['median']:9.1f} us median"
        if each in row["ratios"]:
            ratio = row["ratios"][each]
            line += f"   ours is {ratio['estimate']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}] as fast"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, help="these cases")
    parser.add_argument("--graphs", default="", help="folder with RandWire's graph files; a made-up graph without it")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of weights and inputs")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    try:
        streams = CudaStreams()
    except ArgumentError as error:
        raise SystemExit(f"nothing was measured: {error}") from None
    device = torch.cuda.get_device_name(streams.device)
    settings = {"device": device, "dtype": options.dtype, "tf32": torch.backends.cudnn.allow_tf32}
    print(settings)
    rows = []
    for name in options.only:
        rows.append(measure(name, options.graphs, options.dtype, 12 if options.quick else 60, streams))
        compare(rows[-1])
        show(rows[-1])
    if options.json:
        document = {"fingerprint": fingerprint().to_dict(), **settings, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
