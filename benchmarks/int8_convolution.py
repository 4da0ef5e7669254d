"""Convolutions from int8 and 4-bit weights against torch, each pair timed interleaved in this process.

Ours is the whole layer: quantising the image, the product, scales, bias and relu. The peer is oneDNN through torch in
its best setting: weights reordered once beforehand for the very shape (`mkldnn_reorder_conv2d_weight`), relu fused.
Both sides of a pair read and write the same channels_last images, in float32 or in bfloat16. One thread is timed by
thread CPU time, two by wall time. The limit is the int8 rate that `measure_peaks` finds.

    python -m benchmarks.int8_convolution [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from taut.kernels import active_isa, measure_peaks, pack_int8_convolution, pack_vector_convolution
from taut.stats import compare, fingerprint, quietness


class Layer(NamedTuple):
    """A square convolution on square images, padded to keep the size at stride 1."""

    images: int
    channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int

    def __str__(self) -> str:
        return (
            f"{self.images:2d} x {self.channels:3d} -> {self.out_channels:3d}, {self.size:2d} x {self.size:2d}, "
            f"kernel {self.kernel}, stride {self.stride}"
        )


# ResNet-20 and -56 on CIFAR, one image and a batch; then layers of ResNet-50.
CIFAR = (
    (3, 16, 32, 3, 1),
    (16, 16, 32, 3, 1),
    (16, 32, 32, 3, 2),
    (32, 32, 16, 3, 1),
    (32, 64, 16, 3, 2),
    (64, 64, 8, 3, 1),
)
LAYERS = (
    *(Layer(images, *rest) for images in (1, 32) for rest in CIFAR),
    Layer(1, 64, 64, 56, 3, 1),
    Layer(1, 256, 64, 56, 1, 1),
    Layer(1, 64, 256, 56, 1, 1),
    Layer(1, 128, 128, 28, 3, 1),
    Layer(1, 512, 512, 7, 3, 1),
    Layer(8, 512, 512, 7, 3, 1),
)
QUICK_LAYERS = (Layer(32, 16, 16, 32, 3, 1), Layer(32, 64, 64, 8, 3, 1), Layer(1, 64, 64, 56, 3, 1))


def prepacked(x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[list[int], ...]) -> Callable[[], Tensor]:
    """The layer in oneDNN as torch's own compiler calls it."""
    stride, padding, dilation = geometry
    mkldnn = torch.ops.mkldnn
    reordered = torch._C._nn.mkldnn_reorder_conv2d_weight(  # pyright: ignore[reportAttributeAccessIssue]
        weight.to_mkldnn(), padding, stride, dilation, 1, list(x.shape)
    )
    arguments = (padding, stride, dilation, 1, "relu", [], "")
    return lambda: mkldnn._convolution_pointwise(x, reordered, bias, *arguments)


def make_arms(layer: Layer) -> dict[tuple[str, str], Callable[[], Tensor]]:
    """Ours and the peer on one layer, by the element type of its images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(layer.images, layer.channels, layer.size, layer.size, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(layer.out_channels, layer.channels, layer.kernel, layer.kernel, generator=generator)
    bias = torch.randn(layer.out_channels, generator=generator)
    taps = layer.kernel**2
    codes = torch.randint(-7, 8, (layer.out_channels, taps, layer.channels), dtype=torch.int8, generator=generator)
    vectors = (layer.out_channels, taps, -(-layer.channels // 16))
    vector_scales = torch.randint(1, 16, vectors, dtype=torch.uint8, generator=generator)
    packed, scales = pack_int8_convolution(weight)
    packed_vectors = pack_vector_convolution(codes, vector_scales, scales)
    stride, padding, dilation = [layer.stride] * 2, [layer.kernel // 2] * 2, [1, 1]
    geometry = ([layer.kernel] * 2, stride, padding, dilation, "relu")
    torch_geometry = (stride, padding, dilation)
    operators = torch.ops.taut
    half = x.bfloat16()
    return {
        ("W8A8", "fp32"): lambda: operators.int8_convolution(x, packed, scales, bias, *geometry),
        ("W4A8", "fp32"): lambda: operators.vector_convolution(x, packed_vectors, scales, bias, *geometry),
        ("W8A8", "bf16"): lambda: operators.int8_convolution(half, packed, scales, bias, *geometry),
        ("W4A8", "bf16"): lambda: operators.vector_convolution(half, packed_vectors, scales, bias, *geometry),
        ("peer", "fp32"): prepacked(x, weight, bias, torch_geometry),
        ("peer", "bf16"): prepacked(half, weight.bfloat16(), bias.bfloat16(), torch_geometry),
    }


def measure_layer(layer: Layer, threads: int, int8_peak: float | None, budget: float) -> list[dict[str, Any]]:
    """One row per kernel and peer: seconds of both, ratio with interval, share of the int8 peak."""
    clock: Literal["thread_cpu", "wall"] = "thread_cpu" if threads == 1 else "wall"
    arms = make_arms(layer)
    out_size = (layer.size - 1) // layer.stride + 1
    outputs = layer.images * layer.out_channels * out_size**2
    operations = 2 * outputs * layer.channels * layer.kernel**2
    rows = []
    for ours, element in itertools.product(("W8A8", "W4A8"), ("fp32", "bf16")):
        result = compare(arms["peer", element], arms[ours, element], clock=clock, budget=budget)
        rows.append(
            {
                "layer": layer._asdict(),
                "threads": threads,
                "clock": clock,
                "ours": ours,
                "element": element,
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


def print_row(layer: Layer, row: dict[str, Any]) -> None:
    high = "inf" if row["high"] is None else f"{row['high']:.3f}"
    share = row["int8_peak_share"]
    print(
        f"{layer}  {row['threads']} thr  {row['element']}  {row['ours']} {1e6 * row['ours_seconds']:8.1f} us"
        f"  oneDNN {1e6 * row['peer_seconds']:8.1f} us  ratio {row['ratio']:6.3f} [{row['low']:.3f}, {high}]"
        f"  {row['verdict']:11s}  {'' if share is None else f'{100 * share:5.1f} % of int8 peak'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three layers, a quarter of the time for a pair")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    budget = 0.5 if options.quick else 2.0
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
            for layer in QUICK_LAYERS if options.quick else LAYERS:
                for row in measure_layer(layer, threads, int8_peak, budget):
                    rows.append(row)
                    print_row(layer, row)
    if options.json:
        document = {
            "fingerprint": fingerprint().to_dict(),
            "quietness": str(quiet),
            "isa": active_isa(),
            "peaks": peaks,
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
