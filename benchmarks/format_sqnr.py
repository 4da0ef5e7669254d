"""Signal to quantisation noise of the weights of MiniLM's 36 encoder Linears, by format and scale chooser.

10 log10(sum w^2 / sum (w' - w)^2) pooled over all 10,616,832 weights, w' what the stored codes decode to. Stored bits
are those of the buffers, scales of every level and padding included: Q4_K, for one, needs whole blocks of 256, so that
rows of 384 waste a quarter. Seconds are thread CPU time of encoding all of them on one thread, packing included. The
data-aware choosers need activations and are judged by accuracy, not here.

    python -m benchmarks.format_sqnr [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from examples.minilm import model
from torch import Tensor, nn

from taut.numerics import encode, get_format
from taut.stats import fingerprint

QUICK = (
    ("int4-channel", "max"),
    ("vsq4-v16-s4", "round"),
    ("vsq4-v16-s4", "requantise"),
    ("vsq4-v16-s4", "search"),
    ("vsq4-v16-s4", "joint"),
    ("q4_0", "max"),
    ("nvfp4", "max"),
    ("mxfp4", "max"),
)
CASES = (
    ("int8-channel", "max"),
    ("int8-channel", "mse"),
    ("int4-channel", "max"),
    ("int4-channel", "percentile"),
    ("int4-channel", "entropy"),
    ("int4-channel", "mse"),
    ("int4-tensor", "mse"),
    ("uint4-channel", "mse"),
    ("int3-channel", "mse"),
    ("vsq4-v16-s4", "round"),
    ("vsq4-v16-s4", "ceil"),
    ("vsq4-v16-s4", "requantise"),
    ("vsq4-v16-s4", "search"),
    ("vsq4-v16-s4", "joint"),
    ("vsq4-v16-s4-tensor", "search"),
    ("vsq4-v16-s6", "joint"),
    ("vsq4-v32-s4", "joint"),
    ("vsq4-v64-s6", "joint"),
    ("vsq4-v16-f16", "mse"),
    ("vsq4-v16-f32", "mse"),
    ("vsq3-v16-s4", "joint"),
    ("vsq3-v16-s6", "joint"),
    ("q4_0", "max"),
    ("q4_0", "search"),
    ("q4_k", "search"),
    ("mxfp4", "max"),
    ("mxfp4", "search"),
    ("mxfp6-e2m3", "max"),
    ("mxfp6-e3m2", "max"),
    ("mxfp8-e4m3", "max"),
    ("mxfp8-e5m2", "max"),
    ("mxint8", "max"),
    ("nvfp4", "max"),
    ("nvfp4", "search"),
    ("fp8-e4m3-channel", "max"),
    ("fp8-e5m2-channel", "max"),
)


def encoder_weights() -> list[Tensor]:
    """The weights of the 36 Linears, each `(out_features, in_features)`."""
    network, _, _ = model()
    return [module.weight.detach() for module in network.modules() if isinstance(module, nn.Linear)]


def measure(weights: list[Tensor], name: str, chooser: str) -> dict[str, Any]:
    """Decibels, stored bits a weight and seconds of one format."""
    signal = noise = 0.0
    stored = 0
    seconds = 0.0
    for weight in weights:
        start = time.thread_time()
        encoded = encode(weight, name, chooser=chooser)
        seconds += time.thread_time() - start
        stored += encoded.nbytes
        signal += float(weight.double().square().sum())
        noise += float((encoded.decode() - weight).double().square().sum())
    return {
        "format": name,
        "chooser": chooser,
        "nominal_bits": get_format(name).nominal_bits,
        "stored_bits": 8 * stored / sum(weight.numel() for weight in weights),
        "decibels": 10 * math.log10(signal / noise),
        "encode_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the eight rows of the published table")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = encoder_weights()
    print(f"{len(weights)} layers, {sum(weight.numel() for weight in weights):,} weights")
    print(f"{'format':20s} {'chooser':12s} {'bits':>6s} {'stored':>7s} {'dB':>7s} {'seconds':>8s}")
    rows = []
    for name, chooser in QUICK if options.quick else CASES:
        row = measure(weights, name, chooser)
        rows.append(row)
        print(
            f"{name:20s} {chooser:12s} {row['nominal_bits']:6.3f} {row['stored_bits']:7.3f} {row['decibels']:7.2f}"
            f" {row['encode_seconds']:8.2f}",
            flush=True,
        )
    if options.json:
        document = {"fingerprint": fingerprint().to_dict(), "threads": 1, "clock": "thread_cpu", "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
