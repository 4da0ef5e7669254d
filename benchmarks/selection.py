"""Selecting the entries of a gradient that are sent: exact top-k and thresholds against torch, one thread.

The peer is what a user writes: `x.abs().topk(k, sorted=False).indices` and the gather of the values; `topk` of a tensor
that holds magnitudes already stands beside it. Ours gives ascending int32 indices and values. Before they are timed the
selected sets are compared: they may differ only among magnitudes equal to the smallest selected one, where ours takes
the first. All pairs are timed interleaved in this process by thread CPU time, on normal numbers, three tensors in turn
(one at 100 M). A pair ends when its interval is narrow, at the latest after its budget.

The limit is a pass that only reads (`torch.sum`). Beside it stand three shares of the rate at which that pass reads: of
the bytes of the tensor alone, of these and the results that are written, and with the results counted twice, since
memory that is written in the ordinary way is read first.

The step of error feedback, which adds the gradient to a residual, selects, and clears what is sent, has the same in
torch for a peer; each side keeps its own residual.

Then the other passes and the codes of the wire, with the bytes that each has to move at least and the share of the
reading rate at which it does.

    python -m benchmarks.selection [--quick] [--budget SECONDS] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taut.kernels import (
    accumulate_and_select_top_k,
    accumulate_moments,
    active_isa,
    decode_indices,
    dequantise_add,
    encode_indices,
    exceedance_moments,
    pack_signs,
    quantise_stochastic,
    scatter_add,
    select_above,
    top_k,
    unpack_majority,
)
from taut.stats import PairedResult, compare, fingerprint, quietness

SIZES = (1_000_000, 5_000_000, 25_000_000, 100_000_000)
SHARES = (0.1, 0.01, 0.001)
SELECTIONS = ("top_k", "select_above")
LARGE = 50_000_000  # from here on one tensor has to do
RANKS = 4

CONFIDENCE = 0.99
FEWEST = 9  # pairs that an interval at half of the error needs
NARROW = 1.1  # upper by lower end
BLOCK = 0.03  # shortest seconds of one arm, so that the fewest pairs span more than one disturbance

Call = Callable[[], object]


class Problem:
    """Gradients of one size, and the magnitude that a share of each exceeds."""

    def __init__(self, size: int, share: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size, self.k = size, int(share * size)
        self.tensors = [torch.randn(size, generator=generator) for _ in range(1 if size >= LARGE else 3)]
        self.magnitudes = [x.abs() for x in self.tensors]
        # Just below the smallest magnitude that ours selects, so that the threshold lets as many pass.
        self.threshold = float(top_k(self.tensors[0], self.k)[1].abs().min()) * (1 - 1e-6)
        for x in self.tensors:
            self._check(x)

    def arms(self) -> dict[str, Call]:
        """What is timed, each call on the next tensor."""
        capacity = self.k + self.k // 4 + 1000
        return {
            "torch": self._turns(self.tensors, self._torch),
            "torch.topk alone": self._turns(self.magnitudes, lambda a: a.topk(self.k, sorted=False)),
            "read": self._turns(self.tensors, torch.sum),
            "top_k": self._turns(self.tensors, lambda x: top_k(x, self.k)),
            "torch step": self._turns(self.tensors, self._torch_step(torch.zeros(self.size))),
            "step": self._turns(self.tensors, self._step(torch.zeros(self.size))),
            "select_above": self._turns(self.tensors, lambda x: select_above(x, self.threshold, capacity, clear=False)),
        }

    def _torch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        indices = x.abs().topk(self.k, sorted=False).indices
        return indices, x[indices]

    def _torch_step(self, residual: Tensor) -> Callable[[Tensor], object]:
        def run(gradient: Tensor) -> object:
            residual.add_(gradient)
            indices, values = self._torch(residual)
            residual[indices] = 0
            return indices, values

        return run

    def _step(self, residual: Tensor) -> Callable[[Tensor], object]:
        return lambda gradient: accumulate_and_select_top_k(gradient, residual, self.k)

    @staticmethod
    def _turns(tensors: list[Tensor], run: Callable[[Tensor], object]) -> Call:
        turns = itertools.cycle(tensors)
        return lambda: run(next(turns))

    def _check(self, x: Tensor) -> None:
        ours, theirs = top_k(x, self.k)[0].long(), self._torch(x)[0].sort().values
        least = x[ours].abs().min()
        sets = [indices[x[indices].abs() > least] for indices in (ours, theirs)]
        if len(ours) != len(theirs) or not torch.equal(*sets):
            raise SystemExit("the selected sets differ; their times would mean nothing")


def compare_until_narrow(peer: Call, ours: Call, budget: float) -> PairedResult:
    """The fewest pairs, or if their interval is wide and time is left others after them; each has half of the error."""
    alpha = (1 - CONFIDENCE) / 2
    first = compare(peer, ours, clock="thread_cpu", budget=budget, alpha=alpha, max_pairs=FEWEST, min_block=BLOCK)
    left = budget - first.elapsed
    if left < first.elapsed or first.high <= NARROW * first.low:
        return first
    return compare(peer, ours, clock="thread_cpu", budget=left, alpha=alpha)


def reading_shares(size: int, k: int, ratio: float) -> dict[str, float]:
    """Shares of the reading rate by the tensor's bytes, with the results, and with the results read before."""
    results = 8 * k / (4 * size)
    return {
        "share_of_reading_rate": ratio,
        "share_with_results": ratio * (1 + results),
        "share_with_results_read_first": ratio * (1 + 2 * results),
    }


def row(size: int, share: float, ours: str, peer: str, result: PairedResult) -> dict[str, Any]:
    """The figures of one pair."""
    shares = reading_shares(size, int(share * size), result.ratio) if peer == "read" and ours in SELECTIONS else {}
    return {
        "size": size,
        "share": share,
        "ours": ours,
        "peer": peer,
        "ours_seconds": result.candidate_seconds,
        "peer_seconds": result.baseline_seconds,
        "ratio": result.ratio,
        "low": result.low,
        "high": result.high if result.has_interval else None,
        "confidence": CONFIDENCE,
        "verdict": result.verdict,
        "pairs": result.pairs,
        **shares,
    }


def print_row(row: dict[str, Any]) -> None:
    high = "inf" if row["high"] is None else f"{row['high']:.2f}"
    print(
        f"{row['size'] / 1e6:5.0f} M  {100 * row['share']:5.1f} %  {row['ours']:12s}  against {row['peer']:16s}"
        f"  ours {1e3 * row['ours_seconds']:8.3f} ms  peer {1e3 * row['peer_seconds']:9.3f} ms"
        f"  ratio {row['ratio']:7.2f} [{row['low']:.2f}, {high}]",
        flush=True,
    )
    if "share_with_results" in row:
        print(
            f"{'':10s}{100 * row['share_of_reading_rate']:.0f} % of the reading rate by the bytes read,"
            f" {100 * row['share_with_results']:.0f} % with the results,"
            f" {100 * row['share_with_results_read_first']:.0f} % with the results counted twice",
            flush=True,
        )


def measure(size: int, share: float, budget: float) -> list[dict[str, Any]]:
    problem = Problem(size, share, seed=int(size * share))
    arms = problem.arms()
    pairs = [(ours, peer) for peer in ("torch", "read") for ours in SELECTIONS]
    rows = []
    for ours, peer in [*pairs, ("top_k", "torch.topk alone"), ("step", "torch step")]:
        result = compare_until_narrow(arms[peer], arms[ours], budget)
        rows.append(row(size, share, ours, peer, result))
        print_row(rows[-1])
    return rows


def passes(size: int, share: float) -> dict[str, tuple[Call, int]]:
    """The other kernels on tensors of one size, and the bytes that each has to move at least."""
    generator = torch.Generator().manual_seed(0)
    gradient, residual = (torch.randn(size, generator=generator) for _ in range(2))
    x = torch.randn(size, generator=generator)
    k = int(share * size)
    indices, values = top_k(x, k)
    packed = torch.stack([pack_signs(torch.randn(size, generator=generator)) for _ in range(RANKS)])
    codes, steps = quantise_stochastic(x, 8, 0)
    encoded = encode_indices(indices, size)
    # So small that what a call adds does not grow from call to call; in memory of its own, unlike zeros.
    small, dense = torch.full((size,), 1e-30), torch.full((size,), 1.0)
    return {
        "accumulate_and_select_top_k": (lambda: accumulate_and_select_top_k(gradient, residual, k), 12 * size),
        "accumulate_moments": (lambda: accumulate_moments(small, x), 12 * size),
        "accumulate_moments, logarithm": (lambda: accumulate_moments(small, x, log=True), 12 * size),
        "accumulate_moments, histogram": (lambda: accumulate_moments(small, x, histogram=True), 12 * size),
        "exceedance_moments": (lambda: exceedance_moments(x, 1.0), 4 * size),
        "scatter_add": (lambda: scatter_add(dense, indices, values, 0.0), 16 * k),
        "pack_signs": (lambda: pack_signs(x), 4 * size + size // 8),
        f"unpack_majority of {RANKS}": (lambda: unpack_majority(packed, size, out=dense), 4 * size + RANKS * size // 8),
        "quantise_stochastic, 8 bits": (lambda: quantise_stochastic(x, 8, 0), 5 * size),
        "dequantise_add, 8 bits": (lambda: dequantise_add(dense, codes, steps, 8, 0.0), 9 * size),
        "encode_indices": (lambda: encode_indices(indices, size), 4 * k + encoded.numel()),
        "decode_indices": (lambda: decode_indices(encoded, size), 4 * k + encoded.numel()),
    }


def measure_passes(size: int, share: float, budget: float) -> list[dict[str, Any]]:
    x = torch.randn(size)
    rows = []
    for name, (call, moved) in passes(size, share).items():
        result = compare_until_narrow(x.sum, call, budget)
        rows.append(row(size, share, name, "read", result))
        part = result.ratio * moved / (4 * size)
        elements = int(share * size) if "ind" in name or name == "scatter_add" else size
        rows[-1] |= {"bytes": moved, "share_of_reading_rate": part}
        print(
            f"{size / 1e6:5.0f} M  {name:30s}  {1e3 * result.candidate_seconds:8.3f} ms"
            f"  {elements / result.candidate_seconds / 1e6:7.0f} M elements/s"
            f"  {moved / result.candidate_seconds / 1e9:6.1f} GB/s, {100 * part:4.0f} % of reading",
            flush=True,
        )
    bits = 8 * encode_indices(top_k(x, int(share * size))[0], size).numel() / int(share * size)
    rows.append({"size": size, "share": share, "ours": "encode_indices", "bits_an_index": bits})
    print(f"encode_indices: {bits:.3f} bits an index at {100 * share:g} %")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="25 M elements and 1 %% only, eight seconds a pair")
    parser.add_argument("--budget", type=float, default=12.0, help="most seconds a pair; four times as many at 100 M")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    budget = 8.0 if options.quick else options.budget
    torch.set_num_threads(1)
    quiet = quietness()
    print(f"instruction set {active_isa()}, torch {torch.__version__}, {quiet}")
    rows: list[dict[str, Any]] = []
    for size in SIZES[2:3] if options.quick else SIZES:
        for share in (0.01,) if options.quick else SHARES:
            rows += measure(size, share, 4 * budget if size >= LARGE else budget)
    rows += measure_passes(25_000_000, 0.01, budget / 2)
    if options.json:
        document = {
            "fingerprint": fingerprint().to_dict(),
            "quietness": str(quiet),
            "isa": active_isa(),
            "torch": torch.__version__,
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
