"""What a call costs beside its arithmetic: pairs of a linear layer and tanh, 8 features wide, any batch, one thread.

Ours is timed natively (the session's own loop, no Python) and from Python with torch tensors; Apache TVM's virtual
machine likewise, the other peers from Python with inputs bound beforehand. At one and at ten pairs, from which follows
what each further pair costs. TVM is untuned and searched for in TAUT_TVM, a folder of site-packages.

    python -m benchmarks.call_overhead [--quick] [--only CASE...] [--json FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks._compiled_peers import (
    BOUND_INPUTS,
    Arm,
    benchmark,
    collect,
    compile_ours,
    compiled_arm,
    export_onnx,
    inductor_arm,
    onnxruntime_arm,
    openvino_arm,
    our_arms,
    parse,
    print_absent,
    python_arm,
    tvm_arms,
    validate,
    versus,
)
from benchmarks._networks import multilayer_perceptron

CASES = ("batch 1", "batch 8")
PAIRS = (1, 10)
WIDTH = 8
VALIDATED = (1, 7, 64)  # batches


def build_arms(pairs: int, folder: Path, options: argparse.Namespace) -> tuple[dict[str, Arm], dict[str, Arm]]:
    """Ours and the peers, validated."""
    network = multilayer_perceptron(pairs, WIDTH)
    example = (torch.randn(4, WIDTH),)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    ours = our_arms(compile_ours(network, example, dynamic))
    folder.mkdir()

    def onnx() -> Path:
        return export_onnx(network, example, dynamic, folder / "model.onnx")

    peers, absent = collect(
        {
            "torch eager": lambda: python_arm("torch eager", network),
            "onnxruntime": lambda: onnxruntime_arm(onnx()),
            "openvino": lambda: openvino_arm(onnx()),
            "tvm": lambda: tvm_arms(network, example, dynamic),
            "torch.compile": lambda: compiled_arm(network, example, dynamic=True),
            "AOTInductor": lambda: inductor_arm(network, example, dynamic, folder),
        },
        options,
    )
    print_absent(absent)
    validate([*ours.values(), *peers.values()], network, [(torch.randn(batch, WIDTH),) for batch in VALIDATED])
    return ours, peers


def measure(case: str, pairs: int, ours: dict[str, Arm], peers: dict[str, Arm], options: Any) -> list[dict[str, Any]]:
    samples = [(torch.randn(int(case.split()[1]), WIDTH),) for _ in range(BOUND_INPUTS)]
    label = f"{case}, {pairs} pair{'s' * (pairs > 1)}"
    rows = [versus(label, ours["taut native"], ours["taut"], samples, options)]
    for name, peer in peers.items():
        rows.append(versus(label, ours["taut native" if name.endswith("native") else "taut"], peer, samples, options))
    return rows


def print_slopes(case: str, rows: dict[int, list[dict[str, Any]]]) -> None:
    """Microseconds of each further pair, by arm."""
    times = {
        pairs: {row["peer"]: row["peer_seconds"] for row in of} | {row["ours"]: row["our_seconds"] for row in of}
        for pairs, of in rows.items()
    }
    few, many = PAIRS
    for name, seconds in times[few].items():
        if name in times[many]:
            print(f"{case}: each further pair {1e6 * (times[many][name] - seconds) / (many - few):7.3f} us  {name}")


def main() -> None:
    options = parse(__doc__, CASES)
    with benchmark(options) as (document, folder):
        arms = {pairs: build_arms(pairs, folder / str(pairs), options) for pairs in PAIRS}
        for case in options.only[: 1 if options.quick else None]:
            rows = {pairs: measure(case, pairs, *arms[pairs], options) for pairs in PAIRS}
            print_slopes(case, rows)
            document["rows"] += [{**row, "pairs_of_layers": pairs} for pairs, of in rows.items() for row in of]


if __name__ == "__main__":
    main()
