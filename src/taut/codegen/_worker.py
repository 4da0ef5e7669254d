"""A worker process: reads one job a line, writes one object file each, and answers with a line.

    python -m taut.codegen._worker TARGET

A job is `{"object": path, "recipe": {...}}`, or without a recipe for the Halide runtime. The answer is
`{"seconds": s}` or `{"failed": reason}`. What Halide prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import halide as hl

from taut.codegen._recipe import Recipe
from taut.codegen._templates import pipeline


def generate(job: dict[str, Any], target: hl.Target) -> None:
    """Write the object file of one job."""
    if "recipe" not in job:
        hl.compile_standalone_runtime(job["object"], target)
        return
    recipe = Recipe.from_dict(job["recipe"])
    kernel, arguments = pipeline(recipe)
    for feature in (hl.TargetFeature.NoRuntime, hl.TargetFeature.NoBoundsQuery):
        target = target.with_feature(feature)
    kernel.compile_to({hl.OutputFileType.object: job["object"]}, arguments, f"taut_{recipe.key}", target)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["HL_TARGET"] = sys.argv[1]  # the templates ask for it
    target = hl.Target(sys.argv[1])
    for line in sys.stdin:
        job = json.loads(line)
        start = time.perf_counter()
        try:
            generate(job, target)
            answer = {"seconds": time.perf_counter() - start}
        except Exception as error:  # one recipe must not end the others'
            answer = {"failed": f"{type(error).__name__}: {error}".strip()[:400]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
