"""How long compiling takes, on all cores, each time in a fresh process: ours against torch.compile and its first call.

Cold is with empty caches, warm in a new process that finds those of the cold one. Ours is `taut.compile` from the
module to a model that has run once, for every length of MiniLM; the peer is torch.compile, likewise dynamic for MiniLM,
and its first call. Loading weights and libraries is outside of the figures: both sides import what they need and export
a layer of one weight before the clock starts, as torch loads much of itself at the first export; that takes the seconds
printed as preload. The rounds alternate between both sides; every figure is a median, given with its least and largest
value.

    python -m benchmarks.compile_time [--quick] [--only CASE...] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from benchmarks._networks import encoder
from taut.stats import fingerprint, quietness

SIDES = ("taut", "torch.compile")
Problem = tuple[nn.Module, tuple[Tensor, ...], Any]


def sentence_encoder() -> Problem:
    from examples import minilm

    network, _, _ = minilm.model()
    tokens = Dim("tokens", min=2, max=128)
    ids = torch.randint(1000, 20000, (1, 24))
    return network, (ids, torch.ones_like(ids)), ({1: tokens}, {1: tokens})


def residual_network() -> Problem:
    from examples import resnet20

    return resnet20.model(), (torch.randn(1, 3, 32, 32),), None


def small_encoder() -> Problem:
    return encoder(), (torch.randn(1, 24, 256),), ({1: Dim("tokens", min=1, max=512)},)


CASES: dict[str, Callable[[], Problem]] = {
    "minilm": sentence_encoder,
    "resnet20": residual_network,
    "encoder": small_encoder,
}


def compile_once(side: str, case: str) -> None:
    """In a process of its own: print the seconds of compiling and one call."""
    network, example, dynamic = CASES[case]()
    with torch.inference_mode():
        network(*example)
        start = time.perf_counter()
        compile_model = importlib.import_module("taut.compile").compile_model
        importlib.import_module("torch._inductor.compile_fx")
        torch.export.export(nn.Linear(1, 1), (torch.zeros(1, 1),)).run_decompositions({})
        preload = time.perf_counter() - start
        stages: dict[str, float] = {}
        start = time.perf_counter()
        if side == "taut":
            model = compile_model(network, example, dynamic_shapes=dynamic)
            model(*example)
            stages |= model.report.seconds
        else:
            torch.compile(network, dynamic=dynamic is not None)(*example)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "preload": preload, "stages": stages}))


def child(side: str, case: str, cache: Path) -> dict[str, Any]:
    """Compile in a fresh process with its caches in a folder."""
    environment = {**os.environ, "TAUT_CACHE": str(cache / "taut"), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.compile_time", "--child", side, case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} could not compile {case}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(case: str, rounds: int) -> list[dict[str, Any]]:
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(rounds):
        for side in SIDES if turn % 2 == 0 else reversed(SIDES):
            with tempfile.TemporaryDirectory() as folder:
                for state in ("cold", "warm"):
                    taken.setdefault((side, state), []).append(child(side, case, Path(folder)))
    rows = []
    for state in ("cold", "warm"):
        row: dict[str, Any] = {"case": case, "state": state, "rounds": rounds}
        for side in SIDES:
            row[side] = sorted(each["seconds"] for each in taken[side, state])
        row["stages"] = [each["stages"] for each in taken["taut", state]]
        row["preload"] = sorted(each["preload"] for side in SIDES for each in taken[side, state])
        row["ratio"] = statistics.median(row["torch.compile"]) / statistics.median(row["taut"])
        rows.append(row)
        shown = "   ".join(
            f"{side} {statistics.median(row[side]):7.2f} s [{row[side][0]:.2f}, {row[side][-1]:.2f}]" for side in SIDES
        )
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in row["stages"][0].items())
        print(f"{case:10s} {state}   {shown}   {row['ratio']:6.2f}x shorter", flush=True)
        print(f"  ours, first round: {stages}; preload {statistics.median(row['preload']):.2f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=3, help="compilations of each kind")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=["minilm", "resnet20"], help="these networks")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        compile_once(*options.child)
        return
    quiet = quietness()
    print(quiet)
    rows = [row for case in options.only for row in measure(case, 1 if options.quick else options.rounds)]
    if options.json:
        document = {"fingerprint": fingerprint().to_dict(), "quietness": str(quiet), "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
