"""How soon is an accuracy reached over a slow link: stock fp32, fp16, the compressor that the advice names, Accordion?

A perceptron of 1.1 M parameters learns scikit-learn's digits on 4 ranks in a lab of links of 100 Mbit/s, one thread a
rank. The clock runs during steps (forward, backward, exchange, optimiser; the slowest rank counts) and stands still
while rank 0 evaluates on the test images, after every step. It stops at the first accuracy of 95 %. The arms:

- fp32, fp16: stock DistributedDataParallel, and its half-precision hook;
- fastest step: what `advise` puts first on a profile of this lab. The model knows nothing of what a step is worth;
- advised: what it puts first of the compressors that keep at least half of a gradient's squared norm in one exchange,
  on average over an epoch of one rank (no link is needed to find out);
- Accordion: between PowerSGD at rank 4 and at rank 1.

Arms share first weights and data by seed and take turns. Ratios are geometric means over seeds with Student's interval
at 95 % on the logarithms. Needs root (network namespaces). With --state an interrupted run goes on where it was.

    python -m benchmarks.time_to_accuracy [--quick] [--state FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks._adaptive_report import interval
from benchmarks._data_parallel import initialised
from benchmarks._shaped_training import (
    ACCORDION,
    Course,
    energies_kept,
    step_without_exchange,
    train_until,
    wide_digits,
)
from benchmarks._state import State
from benchmarks._trainings import loss
from taut.distributed import (
    Advice,
    Cluster,
    LinkLab,
    LocalRanks,
    Profile,
    Workload,
    advise,
    measure_group,
    measure_workload,
    missing_for_lab,
    probe_host,
    time_collectives,
)
from taut.hardware import fit_links
from taut.stats import available_cores, fingerprint, quietness

RANKS = 4
MEGABITS = 100
BANDWIDTH = MEGABITS * 1e6 / 8
GOAL = 95.0  # per cent of the test images
MOST_STEPS = 1000
SEEDS = 6
TARGET = 1.5  # times sooner than fp16
LEAST_ENERGY = 0.5  # of a gradient, that a compressor has to keep in one exchange to be advised


def main() -> int:
    """Probe, train and compare; exit code 1 if the lab is missing or the target is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, three arms")
    parser.add_argument("--state", type=Path, help="keep measurements in this file, and go on from it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    missing = missing_for_lab()
    if missing is not None:
        print(f"no lab of shaped links: {missing}", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    state = State(options.state)
    with LinkLab(RANKS, bandwidth=BANDWIDTH) as lab:
        advice = state.get("advice", lambda: advised(lab).to_dict())
        kept = state.get("energies kept", energies_kept)
        arms = {"fp16": "fp16", "advised": choice(advice, kept, LEAST_ENERGY), "Accordion": ACCORDION}
        if not options.quick:
            arms |= {"fp32": "fp32", "fastest step": choice(advice)}
        runs = measure(state, lab, arms, 2 if options.quick else SEEDS)
    rows = [summarise(name, arm, runs, advice) for name, arm in arms.items()]
    print(f"{RANKS} ranks at {MEGABITS} Mbit/s until {GOAL:g} % are right; modelled: {advice['answer']}")
    for row in rows:
        row["energy_kept"] = kept.get(row["compressor"])
        show(row)
    if options.json is not None:
        document = {
            "host": fingerprint().to_dict(), "quietness": str(quietness()), "ranks": RANKS,
            "mbit_per_second": MEGABITS, "goal": GOAL, "advice": advice, "energies_kept": kept,
            "rows": rows, "runs": runs,
        }  # fmt: skip
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    gain = next(row["times_sooner_than_fp16"] for row in rows if row["arm"] == "advised")
    return int(gain is None or gain[0] < TARGET)


def advised(lab: LinkLab) -> Advice:
    """The advice for the training in the lab, from a profile of it."""
    crowding = max(1.0, RANKS / available_cores())
    profile = probe(lab, crowding)
    cluster = Cluster(RANKS, BANDWIDTH, crowding, slowdown=profile.slowdown)
    return advise(workload(), cluster, profile)


def probe(lab: LinkLab, crowding: float) -> Profile:
    """What `taut comm probe` measures: encoders and loopback on the host, collectives over the links."""
    with LocalRanks(2) as pair:
        loopback = pair.run(time_collectives, None, max(1.0, 2 / available_cores()))[0]
    over_links = lab.run(measure_group, BANDWIDTH, crowding)[0].timings
    return replace(probe_host(), links=fit_links([*loopback, *over_links]), bandwidth=BANDWIDTH, ranks=RANKS)


def workload(repeats: int = 10) -> Workload:
    """The step of one rank, the optimiser included, on one thread."""
    training = wide_digits()
    network = initialised(training, 0)
    share = training.batch // RANKS
    inputs, targets = training.inputs[:share], training.targets[:share]
    name = f"{training.name}, {sum(one.numel() for one in network.parameters()) / 1e6:.1f} M parameters"
    found = measure_workload(name, network, (inputs,), loss=lambda logits: loss(logits, targets), repeats=repeats)
    optimiser = training.optimiser(network)
    whole = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step_without_exchange(network, optimiser, (inputs, targets))
        whole.append(time.perf_counter() - start)
    return replace(found, other=max(found.other, min(whole[1:]) - found.backward))


def choice(advice: Mapping[str, Any], kept: Mapping[str, float] | None = None, least: float = 0.0) -> str:
    """The compressor of the fastest step among those that help and keep enough energy; fp16 if none does."""
    helping = [
        one
        for one in advice["predictions"]
        if one["verdict"] == "helps" and (kept is None or kept[one["name"]] >= least)
    ]
    return min(helping, key=lambda one: one["seconds"][0])["name"] if helping else "fp16"


def measure(state: State, lab: LinkLab, arms: Mapping[str, str], seeds: int) -> dict[str, list[dict[str, Any]]]:
    """A run of each arm for each seed, by arm; which one begins changes from seed to seed."""
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms.values()}
    for seed in range(seeds):
        order = list(runs)
        for arm in order[seed % len(order) :] + order[: seed % len(order)]:
            run = state.get(f"{arm} {seed}", lambda arm=arm, seed=seed: course_of(lab, arm, seed))
            runs[arm].append(run)
            print(f"  seed {seed}, {arm}: {run['seconds']:.1f} s, {run['steps']} steps", file=sys.stderr, flush=True)
    return runs


def course_of(lab: LinkLab, arm: str, seed: int) -> dict[str, Any]:
    """One run in the lab."""
    return merged(lab.run(train_until, arm, seed, GOAL, MOST_STEPS), GOAL)


def merged(courses: Sequence[Course], goal: float) -> dict[str, Any]:
    """What all ranks have seen as one: the slowest rank of each step counts."""
    seconds = np.max([course.seconds for course in courses], axis=0)
    return {
        "reached": courses[0].scores[-1] >= goal,
        "seconds": float(seconds.sum()),
        "steps": len(seconds),
        "step_seconds": median(seconds.tolist()),
        "sent": courses[0].sent,
    }


def summarise(
    name: str, arm: str, runs: Mapping[str, Sequence[Mapping[str, Any]]], advice: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of one arm; times are compared where each run of both arms has reached the goal."""
    own, base = runs[arm], runs["fp16"]
    predicted = {one["name"]: one["seconds"] for one in advice["predictions"]}
    reached = all(run["reached"] for run in (*own, *base))
    return {
        "arm": name,
        "compressor": arm,
        "runs": len(own),
        "runs_that_reached": sum(run["reached"] for run in own),
        "seconds": float(np.median([run["seconds"] for run in own])),
        "steps": float(np.median([run["steps"] for run in own])),
        "step_seconds": float(np.median([run["step_seconds"] for run in own])),
        "predicted_step_seconds": predicted.get(arm),
        "times_sooner_than_fp16": ratio(base, own, "seconds") if reached else None,
        "times_as_many_steps": ratio(own, base, "steps") if reached else None,
        "step_times_faster_than_fp16": ratio(base, own, "step_seconds"),
        "predicted_step_times_faster": predicted["fp16"][0] / predicted[arm][0] if arm in predicted else None,
    }


def ratio(above: Sequence[Mapping[str, Any]], below: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Geometric mean of the ratio of paired runs, with its interval."""
    logarithms = [float(np.log(one[key] / other[key])) for one, other in zip(above, below, strict=True)]
    return [float(value) for value in np.exp(interval(logarithms))]


def show(row: Mapping[str, Any]) -> None:
    """Print one arm."""
    predicted = row["predicted_step_seconds"]
    modelled = "" if predicted is None else f" (predicted {predicted[0] * 1e3:.0f} ms)"
    energy = "" if row["energy_kept"] is None else f", keeps {row['energy_kept']:.0%} of a gradient"
    print(
        f"{row['arm']:13s}{row['compressor']:18s}{row['runs_that_reached']} of {row['runs']} reached it, median "
        f"{row['seconds']:.2f} s, {row['steps']:.0f} steps of {row['step_seconds'] * 1e3:.0f} ms{modelled}{energy}"
    )
    if row["compressor"] == "fp16":
        return
    faster = row["predicted_step_times_faster"]
    said = "" if faster is None else f", predicted {faster:.2f}x"
    print(f"{'':13s}step: {_text(row['step_times_faster_than_fp16'])} faster than fp16{said}")
    if row["times_sooner_than_fp16"] is not None:
        print(
            f"{'':13s}accuracy: {_text(row['times_sooner_than_fp16'])} sooner than fp16, "
            f"{_text(row['times_as_many_steps'])} as many steps"
        )


def _text(values: Sequence[float]) -> str:
    estimate, low, high = values
    return f"{estimate:.2f}x [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
