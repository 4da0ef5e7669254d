"""What the benchmarks of compiled models share: the peers, ours, pairs of them, and their figures.

An arm binds inputs outside of the timing, so that no peer pays for conversions, and calls go round several bound inputs
of one shape, so that none is timed on values it has just seen. One thread; the time is the thread's CPU time, which
holds for every peer here, as with one thread all of them work on the thread that calls. Peers that take long to build
(torch.compile, AOTInductor) write into a temporary folder of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import taut.compile
from benchmarks._openvino import load_openvino
from taut.compile import CompiledModel
from taut.errors import TautError
from taut.stats import Clock, compare, fingerprint, quietness
from taut.stats._arms import TimedArm

Inputs = tuple[Tensor, ...]
Call = Callable[[], object]
Made = TypeVar("Made")

BOUND_INPUTS = 4  # of each shape; calls go round them
SLOW_TO_BUILD = ("torch.compile", "AOTInductor")


@dataclass(frozen=True)
class Arm:
    """One way to run a model.

    Attributes:
        name: how it is printed.
        bind: from inputs to a call on them, and a function that gives the first output of the last such call.
        block: for a call that is repeated natively: seconds of so many calls on inputs, read from a clock.
    """

    name: str
    bind: Callable[[Inputs], tuple[Call, Callable[[], Tensor]]]
    block: Callable[[Inputs, int, Clock], float] | None = None

    def result(self, inputs: Inputs) -> Tensor:
        call, fetch = self.bind(inputs)
        call()
        return fetch().clone()

    def timed(self, samples: Sequence[Inputs]) -> TimedSamples:
        """The arm on inputs of one shape, for `taut.stats.compare`."""
        return TimedSamples(self, samples)


class TimedSamples:
    """An arm that goes round its inputs; blocks of a native arm take one input each."""

    needs_warm_up = False

    def __init__(self, arm: Arm, samples: Sequence[Inputs]) -> None:
        self.name = arm.name
        self._arm = arm
        self._inputs = itertools.cycle(samples)
        self._calls = itertools.cycle([] if arm.block else [arm.bind(inputs)[0] for inputs in samples])

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        if self._arm.block is not None:
            return self._arm.block(next(self._inputs), repeats, clock)
        following = self._calls.__next__
        for _ in range(warm_up):
            following()()
        rounds = itertools.repeat(None, repeats)
        start = clock.read()
        for _ in rounds:
            following()()
        return clock.read() - start


def python_arm(name: str, function: Callable[..., Any]) -> Arm:
    """A function of tensors that returns a tensor, or a sequence whose first is one."""

    def bind(inputs: Inputs) -> tuple[Call, Callable[[], Tensor]]:
        def fetch() -> Tensor:
            made = function(*inputs)
            return made if isinstance(made, Tensor) else made[0]

        return lambda: function(*inputs), fetch

    return Arm(name, bind)


def our_arms(model: CompiledModel) -> dict[str, Arm]:
    """A compiled model called from Python, and its session called natively."""

    def block(inputs: Inputs, repeats: int, clock: Clock) -> float:
        start = clock.read()
        model.session.time(inputs, repeats)
        return clock.read() - start

    called = python_arm("taut", model)
    return {"taut": called, "taut native": Arm("taut native", called.bind, block)}


def onnxruntime_arm(path: Path, name: str = "onnxruntime") -> Arm:
    """A session on one thread; inputs and output are bound, the output to memory of its final size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    output = session.get_outputs()[0].name

    def bind(inputs: Inputs) -> tuple[Call, Callable[[], Tensor]]:
        values = [x.contiguous().numpy() for x in inputs]
        y = np.asarray(session.run([output], dict(zip(names, values, strict=True)))[0])
        binding = session.io_binding()
        for each, value in zip(names, values, strict=True):
            binding.bind_cpu_input(each, value)
        binding.bind_output(output, "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        keep = (values, y)  # the binding holds addresses only

        def call() -> object:
            session.run_with_iobinding(binding)
            return keep

        return call, lambda: torch.from_numpy(y)

    return Arm(name, bind)


def openvino_arm(path: Path) -> Arm:
    """A model compiled for latency in float32; a request for each bound input, which shares its memory."""
    openvino = load_openvino()

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", hints)

    def bind(inputs: Inputs) -> tuple[Call, Callable[[], Tensor]]:
        request = compiled.create_infer_request()
        values = [x.contiguous().numpy() for x in inputs]
        for index, value in enumerate(values):
            request.set_input_tensor(index, openvino.Tensor(value, shared_memory=True))

        def call() -> object:
            request.infer()
            return values  # whose memory the request reads

        return call, lambda: torch.from_numpy(request.get_output_tensor(0).data.copy())

    return Arm("openvino", bind)


def export_onnx(network: nn.Module, example: Inputs, dynamic: Any, path: Path, *, legacy: bool = False) -> Path:
    """The network as an ONNX file, made once.

    Args:
        network: what to export.
        example: inputs to trace it with.
        dynamic: a dictionary for each input from dimensions to `torch.export.Dim`; None for static shapes.
        path: the file.
        legacy: whether to use the older exporter, which alone has recurrent operators.
    """
    if path.exists():
        return path
    names = [f"input{index}" for index in range(len(example))]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        common: dict[str, Any] = {"input_names": names, "output_names": ["output"]}
        if legacy:
            axes = {
                name: {axis: dim.__name__ for axis, dim in dims.items()}
                for name, dims in zip(names, dynamic, strict=True)
            }
            torch.onnx.export(network, example, path, dynamo=False, dynamic_axes=axes, **common)
        else:
            torch.onnx.export(
                network, example, path, dynamo=True, external_data=False, dynamic_shapes=dynamic, **common
            )
    return path


def compiled_arm(network: nn.Module, example: Inputs, *, dynamic: bool, freezing: bool = False) -> Arm:
    """torch.compile; with `freezing` weights are constants that may be packed beforehand."""
    function = torch.compile(network, dynamic=dynamic or None, options={"freezing": True} if freezing else None)
    with torch.inference_mode():
        function(*example)
    return python_arm("torch.compile frozen" if freezing else "torch.compile", function)


def inductor_arm(network: nn.Module, example: Inputs, dynamic: Any, folder: Path) -> Arm:
    """AOTInductor's package, loaded to run on the thread that calls it."""
    path = folder / "inductor.pt2"
    if not path.exists():
        with torch.no_grad():
            program = torch.export.export(network, example, dynamic_shapes=dynamic)
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return python_arm("AOTInductor", torch._inductor.aoti_load_package(str(path), run_single_threaded=True))


def tvm_arms(network: nn.Module, example: Inputs, dynamic: Any) -> dict[str, Arm]:
    """Apache TVM's virtual machine, untuned, from Python and natively; a peer for call overhead only.

    Where it is not installed, TAUT_TVM may name a folder of site-packages that has it.
    """
    if "TAUT_TVM" in os.environ and os.environ["TAUT_TVM"] not in sys.path:
        sys.path.append(os.environ["TAUT_TVM"])
    tvm = importlib.import_module("tvm")
    relax = importlib.import_module("tvm.relax")
    translate = importlib.import_module("tvm.relax.frontend.torch").from_exported_program
    module = translate(torch.export.export(network, example, dynamic_shapes=dynamic))
    target = tvm.target.Target({"kind": "llvm", "mcpu": "znver4", "num-cores": 1})
    machine = relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())
    function = machine["main"]

    def bind(inputs: Inputs) -> tuple[Call, Callable[[], Tensor]]:
        values = [tvm.runtime.tensor(x.numpy()) for x in inputs]
        return lambda: function(*values), lambda: torch.from_numpy(function(*values)[0].numpy())

    def block(inputs: Inputs, repeats: int, clock: Clock) -> float:
        values = [tvm.runtime.tensor(x.numpy()) for x in inputs]
        evaluator = machine.time_evaluator("main", tvm.cpu(), number=repeats, repeat=1)
        start = clock.read()
        evaluator(*values)  # runs once more than it is asked to, to warm up
        return (clock.read() - start) * repeats / (repeats + 1)

    return {"tvm": Arm("tvm", bind), "tvm native": Arm("tvm native", bind, block)}


def collect(
    builders: Mapping[str, Callable[[], Made | dict[str, Made]]], options: argparse.Namespace
) -> tuple[dict[str, Made], dict[str, str]]:
    """The arms that can be built, and why others cannot; a builder may give several arms by name."""
    arms: dict[str, Made] = {}
    absent: dict[str, str] = {}
    for name, build in builders.items():
        if options.quick and name.startswith(SLOW_TO_BUILD):
            absent[name] = "takes long to build, left out by --quick"
            continue
        if options.peers and name not in options.peers:
            absent[name] = "not among --peers"
            continue
        start = time.perf_counter()
        try:
            made = build()
        except Exception as error:  # a peer may fail in any way; the others are still measured
            lines = str(error).strip().splitlines()
            absent[name] = f"{type(error).__name__}: {lines[0][:160] if lines else ''}"
            continue
        print(f"  built {name} in {time.perf_counter() - start:.1f} s", flush=True)
        arms |= made if isinstance(made, dict) else {name: made}
    return arms, absent


def compile_ours(network: nn.Module, example: Inputs, dynamic: Any) -> CompiledModel:
    """Ours, with what it says about itself."""
    model = taut.compile.compile_model(network, example, dynamic_shapes=dynamic)
    spent = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in model.report.seconds.items())
    print(f"  compiled ours: {model.report.kernels} kernels; seconds: {spent}", flush=True)
    for what, reason in model.report.failed.items():
        print(f"  kernel not generated, runs on ATen: {what}: {reason}")
    for operator, count in model.report.fallbacks.items():
        print(f"  on ATen: {count} x {operator}")
    return model


def validate(arms: Iterable[Arm], network: nn.Module, shapes: Sequence[Inputs], tolerance: float = 1e-4) -> None:
    """Compare every arm with eager on inputs of several shapes; stops the benchmark if one differs."""
    for inputs in shapes:
        wanted = network(*inputs)
        for arm in arms:
            made = arm.result(inputs)
            if made.shape != wanted.shape or not torch.allclose(made, wanted, rtol=tolerance, atol=tolerance):
                gap = float((made - wanted).abs().max()) if made.shape == wanted.shape else float("nan")
                raise SystemExit(f"{arm.name} differs from eager by {gap:.2g} on {[tuple(x.shape) for x in inputs]}")


def versus(case: str, ours: Arm, peer: Arm, samples: Sequence[Inputs], options: argparse.Namespace) -> dict[str, Any]:
    """Time one pair on inputs of one shape, and print its line."""
    return versus_timed(case, ours.timed(samples), peer.timed(samples), options)


def versus_timed(
    case: str, ours: TimedArm, peer: TimedArm, options: argparse.Namespace, units: int = 1
) -> dict[str, Any]:
    """Time one pair and print its line; seconds are those of a call by the units of work in it."""
    result = compare(peer, ours, clock="thread_cpu", budget=options.budget)
    row = {
        "case": case,
        "ours": ours.name,
        "peer": peer.name,
        "our_seconds": result.candidate_seconds / units,
        "peer_seconds": result.baseline_seconds / units,
        "ratio": result.ratio,
        "low": result.low,
        "high": result.high if result.has_interval else None,
        "confidence": result.confidence,
        "verdict": result.verdict,
        "pairs": result.pairs,
    }
    mark = {"faster": "win", "slower": "LOSS"}.get(result.verdict, "no evidence")
    interval = f"[{row['low']:.3f}, {_shown(row['high'])}]"
    print(
        f"{case:20s} {ours.name:11s} {1e6 * row['our_seconds']:10.2f} us   {peer.name:30s}"
        f" {1e6 * row['peer_seconds']:10.2f} us   {row['ratio']:7.3f}x {interval}: {mark}",
        flush=True,
    )
    return row


def print_absent(absent: dict[str, str]) -> None:
    for name, reason in absent.items():
        print(f"  {name}: not run ({reason})")


def print_best(rows: Sequence[dict[str, Any]]) -> None:
    """Of each case the peer that is fastest."""
    for case in dict.fromkeys(row["case"] for row in rows):
        best = min((row for row in rows if row["case"] == case), key=lambda row: row["peer_seconds"])
        print(
            f"{case}: best peer {best['peer']}, ratio {best['ratio']:.3f} [{best['low']:.3f}, {_shown(best['high'])}]"
        )


def _shown(high: float | None) -> str:
    return "inf" if high is None else f"{high:.3f}"


def parse(doc: str | None, cases: Sequence[str]) -> argparse.Namespace:
    """The options that the benchmarks have in common."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short pairs, without peers that take long to build")
    parser.add_argument("--only", nargs="+", choices=cases, default=list(cases), help="these cases")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help="these peers, by the names that are printed")
    parser.add_argument("--budget", type=float, help="seconds a pair")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    options.budget = options.budget or (0.6 if options.quick else 3.0)
    return options


@contextlib.contextmanager
def benchmark(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Path]]:
    """The document that `--json` writes at the end, even after an error, and a temporary folder for exported peers."""
    quiet = quietness()
    print(quiet)
    document: dict[str, Any] = {"fingerprint": fingerprint().to_dict(), "quietness": str(quiet), "rows": []}
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # several networks share the code of nn.Sequential
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch|copyreg")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TAUT_CACHE": f"{folder}/taut"}
        try:
            with torch.inference_mode():
                yield document, Path(folder)
        except TautError as error:
            raise SystemExit(f"{type(error).__name__}: {error}") from error
        finally:
            if options.json:
                options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
