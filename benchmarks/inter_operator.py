"""Small operators on two cores: ours on one and two workers beside onnxruntime and OpenVINO on one and two threads.

Every arm has a process of its own; they take turns in short blocks of wall-clock time. The ratio to a peer is the
median over the rounds of the peer's time by ours in the same round, with a 95 % interval; beside it stands the ratio of
the smallest times, which a busy host disturbs least. Ours is what `taut.compile.schedule` keeps on so many workers.

The bound is max(longest path, work / workers) from the times of steps, each on its best number of workers. The share of
the FMA peak is of both cores, at the smallest time.

    python -m benchmarks.inter_operator [--quick] [--only CASE...] [--graphs FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._branchy_networks import NETWORKS, network
from benchmarks._compiled_peers import export_onnx
from benchmarks._openvino import load_openvino
from taut.compile import compile_model, schedule
from taut.errors import MeasurementError
from taut.graph import graph_cost
from taut.kernels import measure_peaks
from taut.stats import IsolatedArm, fingerprint, quantile_interval, quietness
from taut.stats._clock import resolve_clock

THREADS = (1, 2)
OURS = "taut 2"
BLOCK = 5e-3  # seconds
BUDGET = 30.0  # seconds to find a schedule
INPUTS = 4
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


def ours(name: str, graphs: str, workers: int, report: str) -> Callable[[], object]:
    """Ours; writes what it found out about schedules."""
    module, shape = network(name, graphs)
    inputs = [torch.randn(shape) for _ in range(INPUTS)]
    if workers == 1:
        model = compile_model(module, (inputs[0],))
    else:
        model = schedule(module, (inputs[0],), workers=workers, budget=BUDGET)
        found = model.schedule
        details = {
            "schedule": found.kept,
            "verdict": None if found.verdict is None else dataclasses.asdict(found.verdict),
            "schedules": {one.name: one.measured_seconds for one in found.candidates},
            "steps": found.operators,
            "bound": found.bound,
            "share": found.work_by_workers,
            "macs": int(graph_cost(model.graph).macs),
        }
        Path(report).write_text(json.dumps(details))
    session = model.session
    with torch.no_grad():
        difference = float((session(inputs[0])[0] - module(inputs[0])).abs().max())
    if difference > 1e-3:
        raise ValueError(f"ours differs from eager by {difference}")
    turn = itertools.cycle(inputs)
    return lambda: session(next(turn))


def onnxruntime(name: str, graphs: str, threads: int, path: str) -> Callable[[], object]:
    """A session with inputs and output bound."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    _, shape = network(name, graphs)
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    bindings: list[Any] = []
    for _ in range(INPUTS):
        x = torch.randn(shape).numpy()
        y: Any = session.run([output], {given: x})[0]
        binding = session.io_binding()
        binding.bind_cpu_input(given, x)
        binding.bind_output(output, "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        bindings.append((binding, x, y))
    turn = itertools.cycle(bindings)
    return lambda: session.run_with_iobinding(next(turn)[0])


def openvino(name: str, graphs: str, threads: int, path: str) -> Callable[[], object]:
    """A model compiled for latency, a request for each input."""
    runtime = load_openvino()

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    core = runtime.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", hints)
    _, shape = network(name, graphs)
    calls = []
    for _ in range(INPUTS):
        request: Any = compiled.create_infer_request()
        request.set_input_tensor(0, runtime.Tensor(torch.randn(shape).numpy(), shared_memory=True))
        calls.append(request._cpp.infer if hasattr(request, "_cpp") else request.infer)
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


PEERS = {"onnxruntime": onnxruntime, "openvino": openvino}


def measure(name: str, graphs: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each arm on one network, by round."""
    module, shape = network(name, graphs)
    path = str(export_onnx(module, (torch.randn(shape),), None, folder / f"{name}.onnx"))
    report = folder / f"{name}.json"
    arms = {f"taut {count}": IsolatedArm(ours, name, graphs, count, str(report), env=PASSIVE) for count in THREADS}
    for peer, factory in PEERS.items():
        arms |= {f"{peer} {count}": IsolatedArm(factory, name, graphs, count, path, env=PASSIVE) for count in THREADS}
    wall = resolve_clock("wall")
    with contextlib.ExitStack() as stack:
        for each, arm in list(arms.items()):
            try:
                stack.enter_context(arm)
            except MeasurementError as error:
                print(f"  {each} is absent: {error}")
                del arms[each]
        repeats = {each: max(3, int(BLOCK / (arm.time_block(5, wall, warm_up=5) / 5))) for each, arm in arms.items()}
        times: dict[str, list[float]] = {each: [] for each in arms}
        order = list(arms)
        draw = random.Random(0)
        for _ in range(rounds):
            draw.shuffle(order)
            for each in order:
                time.sleep(0.005)  # threads of the arm before come to rest
                times[each].append(arms[each].time_block(repeats[each], wall, warm_up=2) / repeats[each])
    if OURS not in times:
        raise SystemExit(f"{name}: ours could not be measured")
    return {"case": name, "times": times, **json.loads(report.read_text())}


def compare(row: dict[str, Any], peak: float) -> None:
    """Add the figures that follow from the times.

    Args:
        row: of one network.
        peak: multiply-adds that all cores do in a second.
    """
    times = row["times"]
    fastest = {each: min(own) for each, own in times.items()}
    row["seconds"] = {each: {"min": min(own), "median": statistics.median(own)} for each, own in times.items()}
    row["ratios"] = {}
    for each, own in times.items():
        if each != OURS:
            found = quantile_interval([peer / mine for peer, mine in zip(own, times[OURS], strict=True)], 0.5)
            by_min = fastest[each] / fastest[OURS]
            row["ratios"][each] = {"ratio": found.estimate, "low": found.low, "high": found.high, "by_min": by_min}
    row["gap"] = fastest[OURS] / row["bound"] - 1
    row["gap_to_share"] = fastest[OURS] / row["share"] - 1
    row["peak_share"] = row["macs"] / fastest[OURS] / peak


def show(row: dict[str, Any]) -> None:
    """Print one network."""
    print(f"{row['case']}: {row['steps']} steps, {1e-6 * row['macs']:.1f} MMAC, schedule {row['schedule']} of", end="")
    print("".join(f" {name} {1e6 * seconds:.1f}" for name, seconds in row["schedules"].items()), "us")
    print(f"  bound {1e6 * row['bound']:.0f} us, work / workers {1e6 * row['share']:.0f} us; ours is", end=" ")
    print(f"{100 * row['gap']:+.0f} % and {100 * row['gap_to_share']:+.0f} % from them,", end=" ")
    print(f"at {100 * row['peak_share']:.0f} % of the FMA peak")
    for each, found in row["seconds"].items():
        line = f"  {each:15s} {1e6 * found['min']:9.1f} us min {1e6 * found['median']:9.1f} us median"
        if each in row["ratios"]:
            ratio = row["ratios"][each]
            line += f"   ours is {ratio['ratio']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}] as fast"
            line += f", {ratio['by_min']:.2f}x by minima"
        print(line)
    peers = [each for each in row["ratios"] if not each.startswith("taut")]
    for kind in ("ratio", "by_min"):
        if peers:
            best = min(peers, key=lambda each: row["ratios"][each][kind])
            print(f"  {kind}: {row['ratios'][best][kind]:.2f}x over the best peer, {best}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, help="these cases")
    parser.add_argument("--graphs", default="", help="folder with RandWire's graph files; a made-up graph without it")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    before = quietness()
    print(before)
    peak = max(THREADS) * measure_peaks(1)["fp32"] / 2
    print(f"FMA peak of {max(THREADS)} cores: {2e-9 * peak:.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            rows.append(measure(name, options.graphs, Path(folder), 12 if options.quick else 60))
            compare(rows[-1], peak)
            show(rows[-1])
    if options.json:
        document = {
            "fingerprint": fingerprint().to_dict(),
            "quietness": [str(before), str(quietness())],
            "peak": peak,
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
