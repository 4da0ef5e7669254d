"""The interval for P(A>B) against rliable's probability_of_improvement, in one run.

rliable resamples both samples and takes percentiles; ours arrives where infinitely many resamples would, without any.
rliable needs pandas<3 and arch<8, so it lives in an environment of its own: name its Python with --peer or in
TAUT_RLIABLE_PYTHON (`pip install rliable==1.2.0 'pandas<3' 'arch<8'`). Its calls and batches of ours alternate on one
thread each; its start-up, imports and a first call are not timed. Times are CPU seconds of the thread that works.

The recommended interval, which is what `outperformance` gives by default, is timed in the same alternation. It is
another interval, so its ends are shown beside the bootstrap's and not compared with them.

Equal precision means: on the same data, both ends of ours lie within rliable's own Monte-Carlo error, which is found
by repeating it with other seeds, and of the mean over these.

    python -m benchmarks.probability_of_improvement [--quick] [--peer PYTHON] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from taut.stats import fingerprint, outperformance, quantile_interval, quietness

SIZES = (29, 100)
OWN_SIZES = (29, 100, 300, 1000)
SHIFT = 0.9538726  # sqrt(2) Phi^-1(0.75)
PAIRS = 6  # the fewest that bound a median at 95 %

PEER = """
import json, sys, time
import numpy as np
from rliable import library, metrics

def estimate(a, b, resamples, seed):
    return library.get_interval_estimates(
        {"pair": [a, b]}, metrics.probability_of_improvement, reps=resamples, random_state=np.random.RandomState(seed)
    )

for line in sys.stdin:
    job = json.loads(line)
    a, b = (np.array(job[name])[:, None] for name in ("a", "b"))
    estimate(a, b, 10, 0)
    start, wall = time.thread_time(), time.perf_counter()
    points, intervals = estimate(a, b, job["resamples"], job["seed"])
    seconds, wall = time.thread_time() - start, time.perf_counter() - wall
    found = {"seconds": seconds, "wall": wall, "estimate": float(points["pair"])}
    print(json.dumps({**found, "ends": intervals["pair"].ravel().tolist()}), flush=True)
"""


def scores(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores with P(A>B) = 0.75, shape (n,) each."""
    generator = np.random.default_rng(n)
    return generator.normal(SHIFT, 1, n), generator.normal(0, 1, n)


def arms(n: int) -> dict[str, Callable[[], Any]]:
    """Ours by name."""
    a, b = scores(n)
    return {
        "unpaired, percentile": lambda: outperformance(a, b, paired=False, method="percentile"),
        "unpaired, recommended": lambda: outperformance(a, b, paired=False),
        "paired, percentile": lambda: outperformance(a, b, paired=True, method="percentile"),
        "paired, recommended": lambda: outperformance(a, b, paired=True),
        "paired, correlation 0.3": lambda: outperformance(a, b, paired=True, correlation=0.3),
        "unpaired, correlation 0.3": lambda: outperformance(a, b, paired=False, correlation=0.3),
    }


def seconds_a_call(call: Callable[[], object], calls: int) -> float:
    """CPU seconds of a call: mean over a batch."""
    start = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - start) / calls


def own_times(calls: int) -> list[dict[str, Any]]:
    """Time of each of ours at each size: median and largest of 7 batches."""
    found = []
    for n in OWN_SIZES:
        for name, call in arms(n).items():
            call()
            batches = [seconds_a_call(call, calls) for _ in range(7)]
            found.append(
                {"arm": name, "n": n, "median_seconds": float(np.median(batches)), "largest_seconds": max(batches)}
            )
            print(f"{name:26} n={n:5} {1e6 * np.median(batches):8.0f} us  (slowest batch {1e6 * max(batches):.0f} us)")
    return found


def against_peer(python: str, n: int, resamples: int, calls: int) -> dict[str, Any]:
    """Alternate calls of the peer and batches of ours on one set of scores."""
    a, b = scores(n)
    calls_by_name = {name: arms(n)[f"unpaired, {name}"] for name in ("percentile", "recommended")}
    found = {name: call() for name, call in calls_by_name.items()}
    ours = found["percentile"]
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    environment.pop("PYTHONPATH", None)
    peer_seconds, walls, ends, estimate = [], [], [], 0.0
    own_seconds: dict[str, list[float]] = {name: [] for name in calls_by_name}
    with subprocess.Popen(
        [python, "-W", "ignore", "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        for seed in range(PAIRS):
            job = {"a": a.tolist(), "b": b.tolist(), "resamples": resamples, "seed": seed}
            peer.stdin.write(json.dumps(job) + "\n")
            peer.stdin.flush()
            line = peer.stdout.readline()
            if not line:
                sys.exit(f"{python} cannot run rliable; see its message above")
            answer = json.loads(line)
            peer_seconds.append(answer["seconds"])
            walls.append(answer["wall"])
            ends.append(answer["ends"])
            estimate = answer["estimate"]
            for name, call in calls_by_name.items():
                own_seconds[name].append(seconds_a_call(call, calls))
        peer.stdin.close()
    ratios = {name: quantile_interval(np.array(peer_seconds) / own, 0.5) for name, own in own_seconds.items()}
    error = np.std(ends, axis=0, ddof=1)  # of one peer interval
    difference = np.array([ours.interval.low, ours.interval.high]) - np.mean(ends, axis=0)
    within = bool((np.abs(difference) <= 1.96 * error).all())
    for name, ratio in ratios.items():
        print(
            f"n={n}, {resamples} resamples: peer {np.median(peer_seconds):.3f} s, ours ({name}) "
            f"{1e6 * np.median(own_seconds[name]):.0f} us, ratio {ratio.estimate:,.0f} [{ratio.low:,.0f}, "
            f"{ratio.high:,.0f}], interval [{found[name].interval.low:.4f}, {found[name].interval.high:.4f}]"
        )
    print(
        f"    ends: ours [{ours.interval.low:.4f}, {ours.interval.high:.4f}], mean of the peer's "
        f"{np.mean(ends, axis=0).round(4)}, Monte-Carlo deviation of one {error.round(4)}: "
        f"{'within' if within else 'NOT within'} 1.96 of it"
    )
    return {
        "n": n,
        "resamples": resamples,
        "pairs": PAIRS,
        "peer_cpu_seconds": peer_seconds,
        "peer_wall_seconds": walls,
        "our_cpu_seconds": own_seconds,
        "ratio": {name: asdict(ratio) for name, ratio in ratios.items()},
        "estimate": {"ours": ours.estimate, "peer": estimate},
        "our_ends": {name: [one.interval.low, one.interval.high] for name, one in found.items()},
        "peer_ends": ends,
        "peer_monte_carlo_deviation": error.tolist(),
        "within_monte_carlo_error": within,
    }


def main() -> None:
    """Time ours, and the peer where there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 resamples, small batches")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of the peer (its default is 50,000)")
    parser.add_argument("--peer", default=os.environ.get("TAUT_RLIABLE_PYTHON"), help="a Python that has rliable")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    resamples, calls = (200, 20) if options.quick else (options.resamples, 200)
    before = quietness()
    for reason in before.reasons:
        print(f"host not quiet: {reason}")
    report: dict[str, Any] = {
        "host": fingerprint().to_dict(),
        "quiet_before": before.quiet,
        "doubts_before": before.reasons,
        "clock": "CPU time of the thread",
        "ours": own_times(calls),
    }
    if options.peer:
        report["peer"] = "rliable 1.2.0 probability_of_improvement, get_interval_estimates, percentile, 95 %"
        report["against_peer"] = [against_peer(options.peer, n, resamples, calls) for n in SIZES]
    else:
        print("no peer: name a Python that has rliable with --peer or TAUT_RLIABLE_PYTHON")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
