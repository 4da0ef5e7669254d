"""Small operators on two cores: ours on one and two workers beside onnxruntime and OpenVINO on one and two threads.

Every arm has a process of its own; they take turns in short blocks of wall-clock time, and the smallest and the median
count. Ours measures its schedules first (list schedules of whole and of split operators, beside the sequential program)
and keeps the fastest. The bound is the longest path through our operators or half of their work, as measured alone.

    python -m benchmarks.inter_operator [--quick] [--only CASE...] [--graphs FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._branchy_networks import NETWORKS, network
from benchmarks._compiled_peers import export_onnx
from taut.compile import compile_model
from taut.compile._measured_schedule import fastest_schedule, step_seconds
from taut.compile._parallel import lower_bound
from taut.stats import IsolatedArm, fingerprint, quietness
from taut.stats._clock import resolve_clock

THREADS = (1, 2)
INPUTS = 4
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


def ours(name: str, graphs: str, workers: int, report: str) -> Callable[[], object]:
    """Ours; writes what it found out about schedules."""
    module, shape = network(name, graphs)
    inputs = [torch.randn(shape) for _ in range(INPUTS)]
    model = compile_model(module, (inputs[0],))
    session = model.session
    if workers > 1:
        found = fastest_schedule(model.lowered, (inputs[0],), workers)
        session = found.session
        durations = step_seconds(model.lowered, model.session, (inputs[0],))
        bound = lower_bound(model.lowered.blocks[0], durations, workers)
        kind = min(found.seconds, key=lambda each: found.seconds[each])
        details = {"schedules": found.seconds, "schedule": kind, "bound": bound, "steps": len(durations)}
        Path(report).write_text(json.dumps(details))
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
    import openvino as runtime  # pyright: ignore[reportMissingImports] - of no extra

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
    """Seconds of each arm on one network, smallest and median."""
    module, shape = network(name, graphs)
    path = str(export_onnx(module, (torch.randn(shape),), None, folder / f"{name}.onnx"))
    report = folder / f"{name}.json"
    arms = {f"taut {count}": IsolatedArm(ours, name, graphs, count, str(report), env=PASSIVE) for count in THREADS}
    for peer, factory in PEERS.items():
        arms |= {f"{peer} {count}": IsolatedArm(factory, name, graphs, count, path, env=PASSIVE) for count in THREADS}
    wall = resolve_clock("wall")
    times: dict[str, list[float]] = {each: [] for each in arms}
    with contextlib.ExitStack() as stack:
        for each, arm in list(arms.items()):
            try:
                stack.enter_context(arm)
            except Exception as error:
                print(f"  {each} is absent: {error}")
                del arms[each]
        repeats = {each: max(3, int(5e-3 / (arm.time_block(5, wall, warm_up=5) / 5))) for each, arm in arms.items()}
        for _ in range(rounds):
            for each, arm in arms.items():
                time.sleep(0.005)  # threads of the arm before come to rest
                times[each].append(arm.time_block(repeats[each], wall, warm_up=2) / repeats[each])
    seconds = {each: {"min": min(own), "median": statistics.median(own)} for each, own in times.items() if own}
    if "taut 2" not in seconds:
        raise SystemExit(f"{name}: ours could not be measured")
    return {"case": name, "seconds": seconds, **json.loads(report.read_text())}


def show(row: dict[str, Any]) -> None:
    """Print one network."""
    seconds = row["seconds"]
    print(f"{row['case']}: {row['steps']} steps, bound {1e6 * row['bound']:.0f} us, schedule {row['schedule']}")
    for each, found in seconds.items():
        print(f"  {each:15s} {1e6 * found['min']:9.1f} us min {1e6 * found['median']:9.1f} us median")
    peers = {each: found for each, found in seconds.items() if not each.startswith("taut")}
    for kind in ("min", "median"):
        best = min(peers, key=lambda each: peers[each][kind], default=None)
        if best is not None:
            ratio = peers[best][kind] / seconds["taut 2"][kind]
            alone = seconds["taut 1"][kind] / seconds["taut 2"][kind]
            row[f"ratio_{kind}"] = ratio
            print(f"  {kind}: {ratio:.2f}x over {best}, {alone:.2f}x over one worker")


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
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            rows.append(measure(name, options.graphs, Path(folder), 10 if options.quick else 40))
            show(rows[-1])
    if options.json:
        document = {"fingerprint": fingerprint().to_dict(), "quietness": [str(before), str(quietness())], "rows": rows}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
