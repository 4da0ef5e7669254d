"""Schedules for batches of 1, 8 and 32, and what the schedule of one batch takes at another.

For each batch the best stages are searched by measured costs; then the stages of every batch run at every batch, in
turns with the sequential program. A step that cannot be split at another batch runs whole there. Figures are the least
of several means, in microseconds and over the batch's own schedule: the diagonal should be the least of its column.

    python -m benchmarks.batch_schedules [--quick] [--only CASE...] [--batches N...] [--graphs FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks._branchy_networks import NETWORKS, network
from taut.compile._parallel import Item, Part, Stages
from taut.compile._prepare import prepare
from taut.compile._program import lower
from taut.compile.scheduling._choose import take_turns
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._plan import SEQUENTIAL, Measured, find_stages, measure_split, measure_steps
from taut.compile.scheduling._search import StagePlan
from taut.graph import capture
from taut.stats import fingerprint, quietness

WORKERS = 2
CASES = ("small Inception", "Inception E", "SqueezeNet", "NASNet-A cell")


def transferred(plan: StagePlan, measured: Measured) -> Stages:
    """The stages of one batch over the steps of another: of a step that cannot be split there one part runs it all."""

    def item(one: Item) -> Item | None:
        if not isinstance(one, Part) or measured.costs.can_split(one.step):
            return one
        return one.step if one.part == 0 else None

    stages = []
    for stage in plan.stages(WORKERS).stages:
        groups = (tuple(kept for kept in map(item, group) if kept is not None) for group in stage)
        stages.append(tuple(group for group in groups if group))
    return Stages(tuple(stages), WORKERS)


def described(plan: StagePlan, measured: Measured) -> list[str]:
    """Each stage in a line."""
    operators = measured.operators.graph.operators
    return [
        f"{stage.strategy}: {' | '.join(', '.join(operators[i].name for i in group) for group in stage.groups)}"
        for stage in plan.schedule.stages
    ]


def measure(name: str, graphs: str, batches: list[int], budget: float) -> dict[str, Any]:
    """One network at all batches; each search, and each round of turns, has `budget` seconds."""
    module, shape = network(name, graphs)
    kernels = Kernels()  # many are those of several batches
    found: dict[int, tuple[Measured, StagePlan, torch.Tensor]] = {}
    for batch in batches:
        x = torch.randn(batch, *shape[1:])
        measured = measure_steps(lower(prepare(capture(module, (x,)))), (x,), WORKERS, kernels)
        measure_split(measured, budget)
        found[batch] = measured, find_stages(measured, budget, lambda _: None), x
    seconds: dict[str, dict[str, float]] = {}
    for batch, (measured, _, x) in found.items():
        labels = [step.label for step in measured.lowered.blocks[0].steps]
        schedules = {
            str(other): (transferred(plan, measured), None)
            for other, (source, plan, _) in found.items()
            if [step.label for step in source.lowered.blocks[0].steps] == labels
        }
        seconds[str(batch)] = take_turns([measured.sequential(), *measured.candidates(schedules)], (x,), budget)
    return {
        "case": name,
        "seconds": seconds,
        "stages": {str(batch): described(plan, measured) for batch, (measured, plan, _) in found.items()},
        "complete": {str(batch): plan.complete for batch, (_, plan, _) in found.items()},
    }


def show(row: dict[str, Any]) -> None:
    """Print the table: a row for each schedule, a column for each batch that it runs at."""
    batches = list(row["seconds"])
    print(f"{row['case']}: microseconds a call (over the batch's own schedule)")
    print("  " + f"{'schedule of':14s}" + "".join(f"{f'run at {batch}':>22s}" for batch in batches))
    for schedule in [SEQUENTIAL, *batches]:
        cells = []
        for batch in batches:
            taken, own = row["seconds"][batch].get(schedule), row["seconds"][batch].get(batch)
            text = "other steps" if taken is None or own is None else f"{1e6 * taken:.1f} ({taken / own:.3f})"
            cells.append(f"{text:>22s}")
        print(f"  {schedule:14s}{''.join(cells)}")
    first = row["stages"][batches[0]]
    for batch in batches[1:]:
        same = "the same stages as" if row["stages"][batch] == first else "other stages than"
        print(f"  batch {batch} has {same} batch {batches[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller budget and one network")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, help="these cases")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32], help="batch sizes")
    parser.add_argument("--graphs", default="", help="folder with RandWire's graph files; a made-up graph without it")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = quietness()
    print(before)
    rows = []
    for name in options.only or (CASES[:1] if options.quick else CASES):
        rows.append(measure(name, options.graphs, options.batches, 3.0 if options.quick else 6.0))
        show(rows[-1])
    if options.json:
        document = {"fingerprint": fingerprint().to_dict(), "quietness": [str(before), str(quietness())], "rows": rows}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
