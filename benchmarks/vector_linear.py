"""Linear layers with 4-bit weights against onnxruntime's MatMulNBits, each pair timed interleaved in this process.

Ours is the operator `taut::vector_linear`, float32 in and out, 4.25 bits a weight, with quantising the activations
inside the timing: W4A4 (`inputs="vsq4"`) and W4A8 (`"int8"`). The peer is a model of one MatMulNBits node, float32 in
and out, its constant weights packed when it loads, its input and output bound once. Blocks of 16, 32, 64, 128 and 256
weights share a float32 scale (6, 5, 4.5, 4.25 and 4.125 bits a weight); accuracy level 4 makes activations int8 within
the operator, level 0 keeps them float32. With blocks of 16 its weights are ours, value for value. Every output is
compared with the product of the decoded weights before it is timed. No bias on either side. One thread is timed by
thread CPU time, two by wall time, on fewer shapes: there the idle threads of both runtimes spin, as each does by
default, and blocks last 150 ms, so that the spinning of one after its block hardly falls into the other's. The limit of
many rows is the int8 rate, that of one row the rate of reading the packed weights: from memory where they exceed the
third-level cache, else from that.

With `--ggml FOLDER` (or TAUT_GGML) a second peer stands beside: Q4_0 of a llama.cpp build for this host, 4.5 bits a
weight repacked by it, the activations quantised to int8 in blocks of 32 within its operator.

    python -m benchmarks.vector_linear [--quick] [--budget SECONDS] [--ggml FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks._ggml import Ggml
from taut.kernels import active_isa, measure_peaks, pack_vector_linear
from taut.stats import PairedResult, compare, fingerprint, quietness

# M rows, N output and K input features.
ROWS = (1, 8, 16, 32, 128, 1024)
STREAMED = (1, 8192, 8192)  # 35.7 MB packed
SHAPES = (*((rows, size, size) for size in (2048, 4096) for rows in ROWS), STREAMED)
TWO_THREAD_SHAPES = (*((rows, size, size) for size in (2048, 4096) for rows in (1, 8, 128)), STREAMED)
QUICK_SHAPES = ((1, 2048, 2048), (128, 2048, 2048))
BLOCKS = (16, 32, 64, 128, 256)
OURS = {"W4A4": "vsq4", "W4A8": "int8"}
EQUAL, GGML = "block 16, level 4", "ggml Q4_0"

Call = Callable[[], object]


class Problem:
    """One layer and one batch, for ours and for the peers."""

    def __init__(self, rows: int, channels: int, features: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(rows, features, generator=generator)
        self.codes = torch.randint(-7, 8, (channels, features), dtype=torch.int8, generator=generator)
        self.scales = torch.randint(1, 16, (channels, features // 16), dtype=torch.uint8, generator=generator)
        self.gammas = torch.rand(channels, generator=generator) / 100 + 0.001
        self.packed = pack_vector_linear(self.codes, self.scales, self.gammas)

    def ours(self, inputs: str) -> Call:
        x, packed, gammas = self.x, self.packed, self.gammas
        operator = torch.ops.taut.vector_linear
        self._check(operator(x, packed, gammas, None, "none", inputs), 16, 0.15 if inputs == "vsq4" else 0.02)
        return lambda: operator(x, packed, gammas, None, "none", inputs)

    def peer(self, block: int, level: int, threads: int) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = self._model(block, level).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        x, y = self.x.numpy(), np.empty((len(self.x), len(self.codes)), np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        session.run_with_iobinding(binding)
        self._check(torch.from_numpy(y), block, 0.02 if level == 4 else 1e-4)

        def call() -> object:
            session.run_with_iobinding(binding)
            return y  # and so keeps the memory that is bound

        return call

    def ggml(self, library: Ggml, threads: int) -> Call:
        kind = gguf.GGMLQuantizationType.Q4_0
        weight = self.codes * self.block_scales(16).repeat_interleave(16, dim=1)
        blocks = gguf.quants.quantize(weight.numpy(), kind)
        call, y = library.linear(blocks.tobytes(), self.x, len(self.codes), threads)
        call()
        _check_product(y, self.x, torch.from_numpy(gguf.quants.dequantize(blocks, kind)), 0.02)
        return call

    def block_scales(self, block: int) -> torch.Tensor:
        """One float32 scale for each block of each channel; for blocks of 16 those of our weights."""
        return (self.scales * self.gammas[:, None])[:, :: block // 16].contiguous()

    def _model(self, block: int, level: int) -> onnx.ModelProto:
        channels, features = self.codes.shape
        codes = (self.codes.numpy() + 8).astype(np.uint8)
        packed = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(channels, features // block, block // 2)
        node = helper.make_node(
            "MatMulNBits",
            ["x", "codes", "scales"],
            ["y"],
            domain="com.microsoft",
            K=features,
            N=channels,
            bits=4,
            block_size=block,
            accuracy_level=level,
        )
        graph = helper.make_graph(
            [node],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", features])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", channels])],
            [
                numpy_helper.from_array(packed, "codes"),
                numpy_helper.from_array(self.block_scales(block).numpy(), "scales"),
            ],
        )
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def _check(self, y: torch.Tensor, block: int, tolerance: float) -> None:
        weight = self.codes * self.block_scales(block).repeat_interleave(block, dim=1)
        _check_product(y, self.x, weight, tolerance)


def _check_product(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, tolerance: float) -> None:
    expected = x @ weight.T
    error = float((y - expected).norm() / expected.norm())
    if error > tolerance:
        raise SystemExit(f"an output is off by {error:.3f} of its norm; its time would mean nothing")


def row(shape: tuple[int, int, int], threads: int, ours: str, peer: str, result: PairedResult, packed: int) -> dict:
    """The figures of one pair."""
    seconds = result.candidate_seconds
    operations = 2 * shape[0] * shape[1] * shape[2]
    return {
        "shape": shape,
        "threads": threads,
        "ours": ours,
        "peer": peer,
        "ours_seconds": seconds,
        "peer_seconds": result.baseline_seconds,
        "ours_gops": operations / seconds / 1e9,
        "peer_gops": operations / result.baseline_seconds / 1e9,
        "ours_bytes_per_second": packed / seconds,
        "ratio": result.ratio,
        "low": result.low,
        "high": result.high if result.has_interval else None,
        "confidence": result.confidence,
        "verdict": result.verdict,
        "pairs": result.pairs,
    }


def measure_shape(
    shape: tuple[int, int, int], threads: int, budget: float, library: Ggml | None
) -> list[dict[str, Any]]:
    """W4A4 against every setting of the peers, and W4A8 against the setting of equal weights and against Q4_0."""
    clock: Literal["thread_cpu", "wall"] = "thread_cpu" if threads == 1 else "wall"
    problem = Problem(*shape)
    ours = {name: problem.ours(inputs) for name, inputs in OURS.items()}
    # Level 0 is compared where its claim is made; elsewhere it is slower still.
    levels = (4, 0) if shape[0] in (1, 128) and threads == 1 else (4,)
    settings = [(f"block {block}, level {level}", block, level) for level in levels for block in BLOCKS]
    if library is not None:
        settings.append((GGML, 0, 0))
    rows = []
    for label, block, level in settings:
        peer = problem.peer(block, level, threads) if block or library is None else problem.ggml(library, threads)
        for name, call in ours.items():
            if name == "W4A4" or label in (EQUAL, GGML):
                least = 0.003 if threads == 1 else 0.15
                seconds = budget if threads == 1 else max(budget, 3.2)
                result = compare(peer, call, clock=clock, budget=seconds, min_block=least)
                rows.append(row(shape, threads, name, label, result, problem.packed.numel()))
                print_row(rows[-1])
    return rows


def print_row(row: dict[str, Any]) -> None:
    m, n, k = row["shape"]
    high = "inf" if row["high"] is None else f"{row['high']:.3f}"
    print(
        f"{m:4d} x {n:4d} x {k:4d}  {row['threads']} thr  {row['ours']}  {row['peer']:18s}"
        f"  ours {1e6 * row['ours_seconds']:9.1f} us {row['ours_gops']:6.0f} GOP/s"
        f"  peer {1e6 * row['peer_seconds']:9.1f} us {row['peer_gops']:6.0f} GOP/s"
        f"  ratio {row['ratio']:6.3f} [{row['low']:.3f}, {high}]  {row['verdict']}",
        flush=True,
    )


def print_summary(rows: list[dict[str, Any]], peaks: dict[str, float]) -> None:
    """For each shape: the ratio to the peer's blocks of 16 and to its best setting, and the share of the limit."""
    for shape in dict.fromkeys(row["shape"] for row in rows):
        of_shape = [row for row in rows if row["shape"] == shape and row["ours"] == "W4A4"]
        equal = next(row for row in of_shape if row["peer"] == EQUAL)
        best = min((row for row in of_shape if row["peer"] != GGML), key=lambda row: row["ratio"])
        beside = "".join(f"{row['ratio']:.2f} x {GGML}, " for row in of_shape if row["peer"] == GGML)
        if shape[0] > 1:
            limit = f"{1e11 * equal['ours_gops'] / peaks['int8']:5.1f} % of the int8 peak"
        else:
            level = "dram" if shape == STREAMED else "l3"
            rate = equal["ours_bytes_per_second"]
            limit = f"{rate / 1e9:5.1f} GB/s, {100 * rate / peaks[level]:5.1f} % of {level}"
        print(
            f"{shape}, {equal['threads']} thread(s): {equal['ratio']:.2f} x block 16 level 4, "
            f"{best['ratio']:.2f} x the best ({best['peer']}), {beside}{limit}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two shapes, one thread, one second a pair")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a pair")
    parser.add_argument("--ggml", type=Path, help="folder with libggml-base.so and libggml-cpu.so")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    budget = 1.0 if options.quick else options.budget
    folder = options.ggml or (Path(os.environ["TAUT_GGML"]) if "TAUT_GGML" in os.environ else None)
    library = None if folder is None else Ggml(folder)
    if library is None:
        print("ggml: not run, no folder was given")
    quiet = quietness()
    print(f"instruction set {active_isa()}, onnxruntime {onnxruntime.__version__}, {quiet}")
    rows: list[dict[str, Any]] = []
    peaks: dict[int, dict[str, float]] = {}
    with torch.inference_mode():
        for threads in (1,) if options.quick else sorted({1, min(2, torch.get_num_threads())}):
            torch.set_num_threads(threads)
            of_threads: list[dict[str, Any]] = []
            for shape in QUICK_SHAPES if options.quick else SHAPES if threads == 1 else TWO_THREAD_SHAPES:
                of_threads += measure_shape(shape, threads, budget, library)
            peaks[threads] = measure_peaks(threads)
            print_summary(of_threads, peaks[threads])
            rows += of_threads
    if options.json:
        document = {
            "fingerprint": fingerprint().to_dict(),
            "quietness": str(quiet),
            "isa": active_isa(),
            "onnxruntime": onnxruntime.__version__,
            "peaks": peaks,
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
