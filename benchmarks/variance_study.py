"""Two real studies: which source of variation dominates, and what one search with many redraws is worth.

On the digits a true ideal estimator (50 searches of 50 trials) stands beside estimators that search once; on CIFAR
images five sources are redrawn 30 times each. For both: is the mean of k runs steadier if all sources are redrawn than
if the initialisation alone is? The studies are those of `examples/`, and go on from a store that is there.

`--only confirmation` is the longer study of the images, whose counts were fixed before its first run (decision 0009).

    python -m benchmarks.variance_study [--quick] [--only NAME] [--workers N] [--stores DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from taut.stats import InProcess, Processes, StudyReport, fingerprint, load_study, quietness

EXAMPLES = Path(__file__).parents[1] / "examples"
STUDIES = {
    "digits": "study_digits.py",
    "images": "study_images.py",
    "confirmation": "study_images_confirmation.py",
}


def record(report: StudyReport, fits: int, seconds: float) -> dict[str, Any]:
    """A report as plain data, with the scores of a run rounded, and of the biased estimators their means."""
    document = report.to_dict()
    scores = document.pop("scores")
    document["scores"] = {label: [_rounded(row) for row in rows] for label, rows in scores.items() if len(rows) == 1}
    document["means"] = {
        label: _rounded([sum(value for value in row if value is not None) / len(row) for row in rows])
        for label, rows in scores.items()
        if len(rows) > 1
    }
    claim = report.ratios.get("fixed:all")
    verdict = "not tested"
    if claim is not None:
        verdict = "shown" if claim.high <= 1 else "refuted" if claim.low > 1 else "neither shown nor refuted"
    document["std_all_at_most_std_init"] = verdict
    return {"fits_of_the_parts": fits, "wall_seconds_of_this_call": round(seconds, 1), **document}


def _rounded(row: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of all counts")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=sorted(STUDIES))
    parser.add_argument("--stores", type=Path, help="folder that keeps the runs; by default they are not kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        os.environ["DIGITS_SCALE"] = os.environ["IMAGES_SCALE"] = "0.05"
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "host": fingerprint().to_dict(),
        "quietness": list(quietness().reasons),
        "quick": options.quick,
    }
    with tempfile.TemporaryDirectory() as kept_nowhere:
        # The confirmation takes hours, so it runs where it is asked for.
        for name in [options.only] if options.only else ["digits", "images"]:
            file = STUDIES[name]
            reference = f"{EXAMPLES / file}:study"
            study = load_study(reference)
            executor = InProcess() if options.workers == 1 else Processes(options.workers, reference)
            start = time.perf_counter()
            report = study.run((options.stores or Path(kept_nowhere)) / f"{name}.study", executor=executor)
            document[name] = record(report, study.fits, time.perf_counter() - start)
            print("\n".join(report.lines()))
            print(f"std(all) <= std(init): {document[name]['std_all_at_most_std_init']}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
