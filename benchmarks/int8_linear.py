"""The int8 linear layer against torch, each pair timed interleaved in this process.

Ours is the whole layer: quantising the activations, the product, scales and bias. The peers are torch's float32 and
bfloat16 `linear` with bias, and `torch.ops.aten._int_mm` alone on ready-made int8 operands (no scales, no bias, int32
out), the weight laid out as (K, N). Weights are packed once before; torch's are as `torch.nn.Linear` holds them. One
thread is timed by thread CPU time, two by wall time. The limit is the int8 rate that `measure_peaks` finds.

    python -m benchmarks.int8_linear [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.functional import linear

from taut.kernels import active_isa, measure_peaks, pack_int8_linear
from taut.stats import compare, fingerprint, quietness

# M rows, N output and K input features: the square case of the claim, then a MiniLM encoder's layers.
SQUARE = (128, 2048, 2048)
SHAPES = (
    SQUARE,
    (1, 2048, 2048),
    (1, 384, 384),
    (16, 384, 1536),
    (128, 384, 384),
    (128, 1536, 384),
    (128, 384, 1536),
    (640, 384, 384),
    (640, 1536, 384),
    (640, 384, 1536),
)
QUICK_SHAPES = (SQUARE, (1, 384, 384), (128, 1536, 384))
OVERHEAD_SHAPE = (8, 8, 8)


def make_arms(rows: int, channels: int, features: int) -> dict[str, Callable[[], object]]:
    """Ours and each peer on one problem: x (M, K), weight (N, K), bias (N,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, features, generator=generator)
    weight = torch.randn(channels, features, generator=generator)
    bias = torch.randn(channels, generator=generator)
    packed, scales = pack_int8_linear(weight)
    x_bf16, weight_bf16, bias_bf16 = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    x_int8 = torch.randint(-127, 128, (rows, features), dtype=torch.int8, generator=generator)
    weight_int8 = torch.randint(-127, 128, (features, channels), dtype=torch.int8, generator=generator)
    operator = torch.ops.taut.int8_linear
    return {
        "ours": lambda: operator(x, packed, scales, bias, "none"),
        "ours, gelu": lambda: operator(x, packed, scales, bias, "gelu"),
        "fp32 linear": lambda: linear(x, weight, bias),
        "bf16 linear": lambda: linear(x_bf16, weight_bf16, bias_bf16),
        "_int_mm alone": lambda: torch.ops.aten._int_mm(x_int8, weight_int8),
    }


def measure_shape(
    shape: tuple[int, int, int], threads: int, int8_peak: float | None, budget: float
) -> list[dict[str, Any]]:
    """One row per peer: seconds of ours and of the peer, ratio with interval, share of the int8 peak."""
    clock: Literal["thread_cpu", "wall"] = "thread_cpu" if threads == 1 else "wall"
    arms = make_arms(*shape)
    operations = 2 * shape[0] * shape[1] * shape[2]
    rows = []
    for peer in ("fp32 linear", "bf16 linear", "_int_mm alone"):
        result = compare(arms[peer], arms["ours"], clock=clock, budget=budget)
        rows.append(
            {
                "shape": shape,
                "threads": threads,
                "clock": clock,
                "peer": peer,
                "ours_seconds": result.candidate_seconds,
                "peer_seconds": result.baseline_seconds,
                "ratio": result.ratio,
                "low": result.low,
                "high": result.high if result.has_interval else None,
                "confidence": result.confidence,
                "verdict": result.verdict,
                "pairs": result.pairs,
                "int8_peak_share": operations / result.candidate_seconds / int8_peak if int8_peak else None,
            }
        )
    return rows


def print_row(row: dict[str, Any]) -> None:
    m, n, k = row["shape"]
    high = "inf" if row["high"] is None else f"{row['high']:.3f}"
    share = row["int8_peak_share"]
    print(
        f"{m:4d} x {n:4d} x {k:4d}  {row['threads']} thr  {row['peer']:14s}"
        f"  ours {1e6 * row['ours_seconds']:9.1f} us  peer {1e6 * row['peer_seconds']:9.1f} us"
        f"  ratio {row['ratio']:7.3f} [{row['low']:.3f}, {high}]  {row['verdict']:11s}"
        f"  {'' if share is None else f'{100 * share:5.1f} % of int8 peak'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three shapes, one second a pair")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    budget = 1.0 if options.quick else 4.0
    quiet = quietness()
    print(f"instruction set {active_isa()}, {quiet}")
    rows: list[dict[str, Any]] = []
    peaks: dict[int, dict[str, float]] = {}
    with torch.inference_mode():
        for threads in sorted({1, min(2, torch.get_num_threads())}):
            torch.set_num_threads(threads)
            peaks[threads] = measure_peaks(threads)
            int8_peak: float | None = peaks[threads]["int8"]
            print(f"{threads} thread(s): int8 peak {int8_peak / 1e9:.0f} G operations/s")
            if int8_peak < 0.75 * threads * peaks[1]["int8"]:
                print("other work held this peak down, so no shares of it are given")
                int8_peak = None
            for shape in QUICK_SHAPES if options.quick else SHAPES:
                for row in measure_shape(shape, threads, int8_peak, budget):
                    rows.append(row)
                    print_row(row)
        torch.set_num_threads(1)
        arms = make_arms(*OVERHEAD_SHAPE)
        result = compare(arms["fp32 linear"], arms["ours"], clock="thread_cpu", budget=budget)
        overhead = {"ours_seconds": result.candidate_seconds, "fp32_linear_seconds": result.baseline_seconds}
        gelu = compare(make_arms(*SQUARE)["ours, gelu"], make_arms(*SQUARE)["ours"], clock="thread_cpu", budget=budget)
    print(
        f"one call at 8 x 8 x 8: ours {1e6 * overhead['ours_seconds']:.2f} us, "
        f"fp32 linear {1e6 * overhead['fp32_linear_seconds']:.2f} us"
    )
    print(f"gelu at {SQUARE}: {100 * (gelu.ratio - 1):.1f} % more time")
    if options.json:
        document = {
            "fingerprint": fingerprint().to_dict(),
            "quietness": str(quiet),
            "isa": active_isa(),
            "peaks": peaks,
            "rows": rows,
            "overhead": overhead,
            "gelu_ratio": gelu.ratio,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
