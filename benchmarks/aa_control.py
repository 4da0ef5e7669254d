"""The control of `taut.stats.compare`: does it call what is not there, and does it see 5 %?

A small convolutional network is compared with itself (every verdict other than "no evidence" is false), with a planted
slow-down of 5 % and with a planted speed-up (20 against 21 repetitions of the same forward pass: work, not sleep).
Every comparison has the default settings and budget.

    python -m benchmarks.aa_control [--quick] [--runs 100] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from taut.stats import compare, fingerprint, quietness

# name, repetitions of the forward pass in the baseline and in the candidate, the right verdict
CASES = (
    ("identical", 20, 20, "no evidence"),
    ("5 % slow-down", 20, 21, "slower"),
    ("5 % speed-up", 21, 20, "faster"),
)


def forward_passes(count: int) -> Callable[[], None]:
    """`count` forward passes of one network, shared by all arms: (4, 3, 16, 16) float32 to (4, 10)."""
    model, images = _network()

    def run() -> None:
        with torch.inference_mode():
            for _ in range(count):
                model(images)

    return run


_shared: list[tuple[torch.nn.Module, torch.Tensor]] = []


def _network() -> tuple[torch.nn.Module, torch.Tensor]:
    if not _shared:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 8 * 8, 10),
        )
        _shared.append((model.eval(), torch.randn(4, 3, 16, 16)))
    return _shared[0]


def control(name: str, baseline: int, candidate: int, right: str, runs: int) -> dict[str, Any]:
    """Repeat one comparison and count its verdicts."""
    results = [compare(forward_passes(baseline), forward_passes(candidate), seed=seed) for seed in range(runs)]
    count = sum(result.verdict == right for result in results)
    low, high = binomtest(count, runs).proportion_ci(0.95)  # Clopper and Pearson
    truth = baseline / candidate
    return {
        "case": name,
        "runs": runs,
        "right": count,
        "right_share_95": [low, high],
        "verdicts": dict(Counter(result.verdict for result in results)),
        "stopped": dict(Counter(result.stopped for result in results)),
        "intervals_with_truth": sum(result.low <= truth <= result.high for result in results),
        "median_seconds": sorted(result.elapsed for result in results)[runs // 2],
        "longest_seconds": max(result.elapsed for result in results),
        "median_pairs": sorted(result.pairs for result in results)[runs // 2],
        "ratios": [result.ratio for result in results],
    }


def main() -> None:
    """Run the control and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="comparisons of each kind")
    parser.add_argument("--quick", action="store_true", help="10 comparisons of each kind")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = 10 if options.quick else options.runs
    start, before = time.perf_counter(), quietness()
    print(f"{runs} runs of each kind, {options.threads} threads, host {'quiet' if before.quiet else 'not quiet'}")
    for reason in before.reasons:
        print(f"  {reason}")
    print(
        f"{'case':14} {'right':>9} {'95 % interval':>16} {'truth inside':>13} "
        f"{'pairs':>6} {'median s':>9} {'longest s':>10}"
    )
    cases = []
    for case in CASES:
        found = control(*case, runs)
        cases.append(found)
        low, high = found["right_share_95"]
        print(
            f"{found['case']:14} {found['right']:>5}/{runs} {f'[{low:.3f}, {high:.3f}]':>17} "
            f"{found['intervals_with_truth']:>9}/{runs} {found['median_pairs']:>6} "
            f"{found['median_seconds']:>9.2f} {found['longest_seconds']:>10.2f}   {found['verdicts']}",
            flush=True,
        )
    if options.json:
        report = {
            "threads": options.threads,
            "host": fingerprint().to_dict(),
            "quiet_before": before.quiet,
            "doubts_before": before.reasons,
            "seconds": time.perf_counter() - start,
            "cases": cases,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
