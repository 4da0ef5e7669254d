"""Accuracy of quantised networks without retraining: VS-Quant beside per-channel quantisation at its best, and float32.

MiniLM on all 9,092 sentence pairs of STS 2012 to 2014, Spearman correlation in points (100 times): the figure fixed
in advance is that of all pairs pooled; the mean over the 15 files, as is customary, stands beside it. ResNet-20 and
ResNet-56 on all 10,000 test images of a JPEG copy of CIFAR-10 (lossy: compare only with each other), accuracy in
points. Differences to float32 come with 95 % paired bootstrap intervals over pairs or images.

Quantised are all 36 linear layers of MiniLM (embeddings stay float32), and all convolutions but the first (3 channels)
of the networks for images, whose last layer (10 outputs) stays as well; batch norm is folded first. Formats are those
of `taut.numerics`; where there is an integer kernel for a scheme, VS-Quant runs on it, else emulated. Arms:

- `vsq`: weights rounded without data, activations dynamic with one coarse scale a token (image);
- `vsq calibrated`: the same after `taut.transform.calibrate`;
- `vsq per tensor`: as `vsq`, but one coarse activation scale for the whole batch, the paper's granularity;
- `poc`: one scale a channel for weights; for activations one a token, or one a layer calibrated by max, percentiles,
  entropy or MSE, signed or with a zero point. Choosers are those with the least output error on calibration data;
- `poc calibrated`: the same choice for activations, after `taut.transform.calibrate` for weights.

The paired difference of `vsq calibrated` minus each arm of POC closes the rows of a width; `--scores` keeps what it is
computed from between runs.

Calibration and choices see 513 sentences, a third each of WikiText-2 (valid), Penn Treebank (valid) and laptop reviews
(train), or 256 CIFAR-10 training images, never test data.

    python -m benchmarks.quantised_accuracy [--quick] [--only TEXT] [--json FILE] [--scores FOLDER]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._accuracy_arms import Forward, Task, channel_arm, tensor_arm, vector_arm
from benchmarks._accuracy_tasks import image_task, sentence_task
from taut.stats import fingerprint, paired_bootstrap

SCHEMES = ("w4a8", "w4a4", "w3a8")
ARMS = ("vsq calibrated", "poc calibrated", "poc", "vsq", "vsq per tensor")
NETWORKS = ("minilm", "resnet20", "resnet56")

_DRAWS = 1000


def arms_of(task: Task, scheme: str) -> dict[str, Callable[[], tuple[Forward, str]]]:
    """What is compared at one width, by name; each gives the network as a function and a remark."""
    vector = f"vsq-{scheme}-v16"
    arms: dict[str, Callable[[], tuple[Forward, str]]] = {
        "vsq calibrated": lambda: vector_arm(task, vector, calibrated=True),
        "vsq": lambda: vector_arm(task, vector, calibrated=False),
        "poc": lambda: channel_arm(task, scheme, calibrated=False),
        "poc calibrated": lambda: channel_arm(task, scheme, calibrated=True),
    }
    if scheme == "w4a4" and task.name == "minilm":
        arms["vsq per tensor"] = lambda: tensor_arm(task)
    return arms


def measure(task: Task, name: str, scores: np.ndarray, remark: str, reference: np.ndarray) -> dict[str, Any]:
    """One row: the arm's score, and its difference to the reference with the interval."""
    row: dict[str, Any] = {"network": task.name, "arm": name, "remark": remark}
    for metric, score in task.metrics.items():
        difference = paired_bootstrap(
            lambda chosen, score=score: score(scores, chosen) - score(reference, chosen),
            task.count,
            resamples=_DRAWS,
        )
        row[metric] = {
            "score": score(scores, np.arange(task.count)),
            "difference": difference.estimate,
            "low": difference.low,
            "high": difference.high,
        }
    return row


def print_row(row: dict[str, Any]) -> None:
    """One line a metric."""
    for metric, cell in row.items():
        if isinstance(cell, dict):
            print(
                f"{row['network']:9s} {row['arm']:20s} {metric:14s} {cell['score']:6.2f}"
                f"  {cell['difference']:+6.2f} [{cell['low']:+.2f}, {cell['high']:+.2f}]  {row['remark']}",
                flush=True,
            )


def compare(task: Task, scheme: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of `vsq calibrated` minus each arm of POC whose scores the folder holds."""
    ours = folder / f"{task.name} {scheme} vsq calibrated.npy"
    rows = []
    for arm in ("poc calibrated", "poc"):
        peer = folder / f"{task.name} {scheme} {arm}.npy"
        if ours.exists() and peer.exists():
            name = f"{scheme} vsq calibrated - {arm}"
            rows.append(measure(task, name, np.load(ours), "", np.load(peer)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs and images")
    parser.add_argument("--only", default="", help="rows whose `network scheme arm` holds one of these, by commas")
    parser.add_argument("--json", type=Path, help="write each row to this file; rows that it holds stay")
    parser.add_argument("--scores", type=Path, help="folder that keeps the scores of single pairs and images")
    options = parser.parse_args()
    document: dict[str, Any] = {"fingerprint": fingerprint().to_dict(), "quick": options.quick, "rows": []}
    if options.json and options.json.exists():
        held = json.loads(options.json.read_text(encoding="utf-8"))
        if held["quick"] != options.quick:
            parser.error(f"{options.json} holds rows of another sample size: name another file")
        document["rows"] = held["rows"]
    done = {(row["network"], row["arm"]) for row in document["rows"]}

    def keep(row: dict[str, Any]) -> None:
        print_row(row)
        if (row["network"], row["arm"]) not in done:
            document["rows"].append(row)
        if options.json:
            options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as passing:
        folder = options.scores or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        for network in NETWORKS:
            wanted = [
                (scheme, arm)
                for scheme in SCHEMES
                for arm in ARMS
                if any(part in f"{network} {scheme} {arm}" for part in options.only.split(","))
                and (network, f"{scheme} {arm}") not in done
            ]
            if not wanted:
                continue
            task = sentence_task(options.quick) if network == "minilm" else image_task(network, options.quick)
            reference = task.evaluate(task.network)
            keep(measure(task, "float32", reference, "", reference))
            for scheme, arm in wanted:
                make = arms_of(task, scheme).get(arm)
                if make is None:
                    continue
                forward, remark = make()
                scores = task.evaluate(forward)
                np.save(folder / f"{network} {scheme} {arm}.npy", scores)
                keep(measure(task, f"{scheme} {arm}", scores, remark, reference))
            for scheme in dict.fromkeys(scheme for scheme, _ in wanted):
                for row in compare(task, scheme, folder):
                    keep(row)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
