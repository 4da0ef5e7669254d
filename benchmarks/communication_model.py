"""The model of compression against measurements: step times predicted for links and rank counts that it has not seen.

Costs of links are fitted on collectives of 2 and 3 ranks at 100 and 1000 Mbit/s and on loopback, those of encoders on 2
ranks, the time to compute with 2 ranks, and the slow-down of computing by communication on steps at 2 ranks and 100
Mbit/s. Predicted, then measured: every model with every compressor at 50, 200 and 500 Mbit/s, with 2 and with 4 ranks.
fp32 is stock DistributedDataParallel, fp16 its half-precision hook; the others are attached by taut. One thread a rank,
buckets of 4 MB, no optimiser; medians of steps, the slowest rank counts. The cost of fitted cells is not counted.

Needs root (network namespaces). With --state an interrupted run goes on where it was.

    python -m benchmarks.communication_model [--quick] [--state FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from taut.distributed import (
    BASELINES,
    CANDIDATES,
    Cluster,
    EncodeCost,
    LinkLab,
    Profile,
    Workload,
    attach,
    measure_workload,
    missing_for_lab,
    predict,
    time_collectives,
    time_encoder,
)
from taut.hardware import CollectiveTiming, fit_links
from taut.stats import available_cores, fingerprint, quietness

BUCKET_MB = 4
COMPRESSORS = ("fp32", "fp16", "top-k 1 %", "top-k 1 % compact", "sparse all-reduce 1 %", "sign", "PowerSGD rank 4")
FITTED_RATES = (100, 1000)  # Mbit/s
RATES = (500, 200, 50)
RANKS = (2, 4)
STEPS = 5
BAND = 0.1  # of the ratio within which neither sign is wrong


@dataclass(frozen=True)
class Task:
    """A model and its batch on each rank."""

    build: Callable[[], nn.Module]
    batch: tuple[int, ...]


def linear_layers(width: int, count: int) -> nn.Module:
    """Linear layers of equal width with activations between them."""
    return nn.Sequential(*(layer for _ in range(count) for layer in (nn.Linear(width, width), nn.ReLU())))


def deep_network() -> nn.Module:
    """2.6 M parameters in ten layers."""
    return linear_layers(512, 10)


def wide_network() -> nn.Module:
    """5.2 M parameters in five layers."""
    return linear_layers(1024, 5)


def convolution_network() -> nn.Module:
    """1.2 M parameters, most of them in 3x3 convolutions."""
    widths = (3, 64, 128, 256, 256)
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(widths):
        layers += [nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 256))


TASKS = {
    "deep": Task(deep_network, (256, 512)),
    "wide": Task(wide_network, (128, 1024)),
    "convolution": Task(convolution_network, (32, 3, 32, 32)),
}


def main() -> int:
    """Fit, predict, measure; exit code 1 if the lab is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one model, three compressors, one held-out rate")
    parser.add_argument("--state", type=Path, help="keep measurements in this file, and go on from it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    missing = missing_for_lab()
    if missing is not None:
        print(f"no lab of shaped links: {missing}", file=sys.stderr)
        return 1
    tasks = ("wide",) if options.quick else tuple(TASKS)
    compressors = COMPRESSORS[:3] if options.quick else COMPRESSORS
    rates = RATES[1:2] if options.quick else RATES
    state = State(options.state)
    begun = time.monotonic()
    measure_costs(state, tasks, compressors)
    for ranks in RANKS:
        measure_cells(state, ranks, rates, tasks, compressors)
    rows, chosen = compare(state, tasks, compressors, rates)
    figures = summarise(rows)
    for choice in chosen:
        print(f"  {choice['link']}, {choice['model']}: best by the model {choice['choice']}, "
              f"predicted {choice['predicted']:.2f}x over fp16, measured {choice['measured']:.2f}x")  # fmt: skip
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes")
    if options.json is not None:
        host = {"fingerprint": fingerprint().to_dict(), "quietness": str(quietness())}
        options.json.write_text(json.dumps(host | figures | {"rows": rows, "choices": chosen}, indent=1) + "\n")
    return 0


class State:
    """Measurements by key, kept in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.exists() else {}

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """What is known of a key, or is measured now."""
        if key not in self._known:
            self._known[key] = measure()
            if self._path is not None:
                self._path.write_text(json.dumps(self._known))
        return self._known[key]

    def knows(self, key: str) -> bool:
        """Whether it was measured."""
        return key in self._known


def measure_costs(state: State, tasks: tuple[str, ...], compressors: tuple[str, ...]) -> None:
    """Everything that the model is fitted on."""
    crowd = {ranks: max(1.0, ranks / available_cores()) for ranks in (2, 3)}
    for ranks in (2, 3):
        keys = [f"collectives {ranks} {rate}" for rate in (None, *FITTED_RATES)]
        wanted = keys + ([f"step {ranks} {FITTED_RATES[0]} {one} {name}" for one in tasks for name in compressors] +
                         [f"workload {one}" for one in tasks] + [f"encoder {name}" for name in compressors]
                         if ranks == 2 else [])  # fmt: skip
        if all(map(state.knows, wanted)):
            continue
        with LinkLab(ranks) as lab:
            for rate, key in zip((None, *FITTED_RATES), keys, strict=True):
                lab.shape(rate and rate * 1e6 / 8)
                arguments = (rate and rate * 1e6 / 8, crowd[ranks])
                state.get(key, lambda lab=lab, arguments=arguments: listed(lab.run(time_collectives, *arguments)[0]))
            if ranks == 2:
                lab.shape(None)
                for name in compressors:
                    state.get(f"encoder {name}", lambda lab=lab, name=name: lab.run(encoder, name)[0])
                for one in tasks:
                    state.get(f"workload {one}", lambda lab=lab, one=one: lab.run(compute, one)[0])
                lab.shape(FITTED_RATES[0] * 1e6 / 8)
                measure_steps(state, lab, ranks, FITTED_RATES[0], tasks, compressors)


def measure_cells(
    state: State, ranks: int, rates: tuple[int, ...], tasks: tuple[str, ...], compressors: tuple[str, ...]
) -> None:
    """The cells that are predicted."""
    wanted = [f"step {ranks} {rate} {one} {name}" for rate in rates for one in tasks for name in compressors]
    if all(map(state.knows, wanted)):
        return
    with LinkLab(ranks) as lab:
        for rate in rates:
            lab.shape(rate * 1e6 / 8)
            measure_steps(state, lab, ranks, rate, tasks, compressors)


def measure_steps(
    state: State, lab: LinkLab, ranks: int, rate: int, tasks: tuple[str, ...], compressors: tuple[str, ...]
) -> None:
    for one in tasks:
        for name in compressors:
            key = f"step {ranks} {rate} {one} {name}"
            seconds = state.get(key, lambda lab=lab, one=one, name=name: lab.run(train, one, name)[0])
            print(f"  {key}: {median(seconds) * 1e3:.0f} ms", file=sys.stderr, flush=True)


def train(task: str, compressor: str, steps: int = STEPS) -> list[float]:
    """On a rank: seconds of each step, the slowest rank's."""
    torch.manual_seed(0)
    module = TASKS[task].build()
    model = DistributedDataParallel(module, bucket_cap_mb=BUCKET_MB)
    if compressor == "fp16":
        model.register_comm_hook(dist.group.WORLD, fp16_compress_hook)
    elif compressor != "fp32":
        attach(model, CANDIDATES[compressor])
    generator = torch.Generator().manual_seed(dist.get_rank())
    taken = []
    for step in range(steps + 2):  # the first ones form buckets and set up connections
        x = torch.randn(TASKS[task].batch, generator=generator)
        model.zero_grad(set_to_none=True)
        dist.barrier()
        start = time.perf_counter()
        model(x).square().mean().backward()
        seconds = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
        dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
        if step > 1:
            taken.append(seconds.item())
    return taken


def compute(task: str) -> dict[str, Any]:
    """On a rank: the same step without communication, while the other ranks compute as well."""
    torch.manual_seed(0)
    x = torch.randn(TASKS[task].batch)
    dist.barrier()
    one = measure_workload(task, TASKS[task].build(), (x,), loss=lambda y: y.square().mean(), repeats=STEPS)
    return {"shapes": [list(shape) for shape in one.shapes], "ready": one.ready, "backward": one.backward,
            "other": one.other}  # fmt: skip


def encoder(name: str) -> list[list[float]]:
    """On a rank: what a compressor costs beside sending."""
    dist.barrier()
    return time_encoder(CANDIDATES[name]).coefficients.tolist()


def listed(timings: list[CollectiveTiming]) -> list[list[Any]]:
    return [[one.collective, one.size, one.ranks, one.bandwidth, one.seconds, one.crowding] for one in timings]


def compare(
    state: State, tasks: tuple[str, ...], compressors: tuple[str, ...], rates: tuple[int, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predicted and measured figures of every cell, and the best choice of each model and link."""
    unknown = lambda: None  # noqa: E731 - everything is measured by now
    keys = [f"collectives {ranks} {rate}" for ranks in (2, 3) for rate in (None, *FITTED_RATES)]
    links = fit_links([CollectiveTiming(*one) for key in keys for one in state.get(key, unknown)])
    costs = {name: EncodeCost(np.array(state.get(f"encoder {name}", unknown))) for name in compressors}
    costs["fp32"] = EncodeCost(np.zeros_like(costs["fp32"].coefficients))  # stock: nothing is done to gradients
    profile = Profile(links, costs, 1.0, None, 2)
    workloads = {}
    for one in tasks:
        kept = state.get(f"workload {one}", unknown)
        shapes = tuple(torch.Size(shape) for shape in kept["shapes"])
        workloads[one] = Workload(one, shapes, tuple(kept["ready"]), kept["backward"], kept["other"])

    def cell(ranks: int, rate: int, one: str, name: str, slowdown: float) -> tuple[np.ndarray, float]:
        crowding = max(1.0, ranks / available_cores())
        cluster = Cluster(ranks, rate * 1e6 / 8, crowding, competes=True, slowdown=slowdown)
        seconds = state.get(f"step {ranks} {rate} {one} {name}", unknown)
        return predict(workloads[one], name, cluster, profile, BUCKET_MB * 2**20), median(seconds)

    fitted = [(2, FITTED_RATES[0], one, name) for one in tasks for name in compressors]
    slowdown = min(np.linspace(1, 2, 101), key=lambda g: sum(_error(*cell(*key, g)) for key in fitted))
    print(f"slow-down of computing by communication, fitted: {slowdown:.2f}")
    rows, chosen = [], []
    for ranks in RANKS:
        for rate in rates:
            for one in tasks:
                found = {name: cell(ranks, rate, one, name, slowdown) for name in compressors}
                rows += describe(ranks, rate, one, found)
                choice = min(compressors, key=lambda name: found[name][0][0])
                chosen.append({
                    "link": f"{ranks} ranks at {rate} Mbit/s", "model": one, "choice": choice,
                    "predicted": float(found["fp16"][0][0] / found[choice][0][0]),
                    "measured": found["fp16"][1] / found[choice][1],
                })  # fmt: skip
    return rows, chosen


def describe(ranks: int, rate: int, one: str, found: Mapping[str, tuple[np.ndarray, float]]) -> list[dict[str, Any]]:
    """The cells of one model and link."""
    predicted_base = min(found[name][0][0] for name in BASELINES)
    measured_base = min(found[name][1] for name in BASELINES)
    rows = []
    for name, (predicted, measured) in found.items():
        gain, real = float(predicted_base / predicted[0]), measured_base / measured
        decided = name not in BASELINES and abs(real - 1) > BAND
        low, high = np.quantile(predicted, [0.025, 0.975])
        rows.append({
            "ranks": ranks, "mbit_per_second": rate, "model": one, "compressor": name,
            "predicted_seconds": float(predicted[0]), "low": float(low), "high": float(high),
            "measured_seconds": measured, "error": float(predicted[0]) / measured - 1,
            "predicted_gain": gain, "measured_gain": real,
            "sign_agrees": (gain > 1) == (real > 1) if decided else None,
        })  # fmt: skip
    return rows


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Print every cell and the figures of the claim."""
    print("ranks  Mbit/s  model        compressor             predicted  measured   error  gain: predicted measured")
    for row in rows:
        wrong = "  WRONG SIGN" if row["sign_agrees"] is False else ""
        print(
            f"{row['ranks']:5d} {row['mbit_per_second']:7d}  {row['model']:12s} {row['compressor']:22s}"
            f"{row['predicted_seconds'] * 1e3:8.0f} ms {row['measured_seconds'] * 1e3:6.0f} ms {row['error']:+7.1%}"
            f"        {row['predicted_gain']:5.2f}x   {row['measured_gain']:5.2f}x{wrong}"
        )
    errors = np.abs([row["error"] for row in rows])
    signs = [row["sign_agrees"] for row in rows if row["sign_agrees"] is not None]
    inside = float(np.mean([row["low"] <= row["measured_seconds"] <= row["high"] for row in rows]))
    figures = {
        "cells": len(rows),
        "median_error": float(np.median(errors)),
        "error_95th_percentile": float(np.quantile(errors, 0.95)),
        "signs_right": sum(signs),
        "signs_decided": len(signs),
        "measured_within_interval": inside,
    }
    print(
        f"{len(rows)} held-out cells: median error {figures['median_error']:.1%} (target 10 %), 95th percentile "
        f"{figures['error_95th_percentile']:.1%} (target 25 %), sign right in {sum(signs)} of {len(signs)} outside the "
        f"band of {BAND:.0%}; {inside:.0%} within the 95 % interval"
    )
    return figures


def _error(predicted: np.ndarray, measured: float) -> float:
    return abs(float(np.log(predicted[0] / measured)))


if __name__ == "__main__":
    sys.exit(main())
