"""How long one what-if takes: a step time predicted for a compressor and a size of buckets, and all what-ifs of a job.

Processor time of one thread. A prediction is warm where the same workload, compressor and size were asked for before,
as in a sweep over bandwidths, and fresh where the size of buckets is a new one. The target is a millisecond.

    python -m benchmarks.what_ifs [--quick] [--json FILE] [--layers FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from taut.distributed import (
    BUCKET_CAPS,
    CANDIDATES,
    Cluster,
    EncodeCost,
    Profile,
    even_workload,
    explore,
    predict,
    read_layer_profiles,
)
from taut.hardware import DRAWS, FORMS, LinkModel
from taut.stats import fingerprint, quietness

RANKS, BANDWIDTH = 16, 10e9 / 8


def main() -> int:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three sizes of buckets, five repeats")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--layers", type=Path, help="a profile of layers; by default 100 blocks of three tensors")
    options = parser.parse_args()
    shapes = [(512, 512, 3, 3), (512,), (512,)] * 100
    job = even_workload("blocks", shapes, 0.1)
    if options.layers is not None:
        job = read_layer_profiles(options.layers)[0].workload()
    profile, cluster = constant_profile(), Cluster(RANKS, BANDWIDTH)
    repeats = 5 if options.quick else 25
    rows = []
    for cap in BUCKET_CAPS[::3] if options.quick else BUCKET_CAPS:
        warm, fresh = [], []
        for name in CANDIDATES:
            ask = partial(predict, job, name, cluster, profile)
            fresh += [seconds(partial(ask, cap + other)) for other in range(1, 4)]
            ask(cap)
            warm.append(median(seconds(partial(ask, cap)) for _ in range(repeats)))
        buckets = len(job.buckets(cap))
        rows.append({"bucket_mb": cap / 2**20, "buckets": buckets, "warm": max(warm), "fresh": median(fresh)})
        print(f"{cap / 2**20:4.0f} MB, {buckets:3d} buckets: warm {max(warm) * 1e3:.3f} ms (slowest of "
              f"{len(CANDIDATES)} compressors), fresh {median(fresh) * 1e3:.3f} ms (median)")  # fmt: skip
    whole = median(seconds(lambda: explore(job, cluster, profile)) for _ in range(3))
    print(f"{len(job.shapes)} tensors, {1 + DRAWS} draws; all what-ifs of the job: {whole * 1e3:.0f} ms")
    if options.json is not None:
        host = {"fingerprint": fingerprint().to_dict(), "quietness": str(quietness())}
        figures = {"tensors": len(job.shapes), "draws": 1 + DRAWS, "all_what_ifs_seconds": whole, "rows": rows}
        options.json.write_text(json.dumps(host | figures, indent=1) + "\n")
    return 0


def constant_profile() -> Profile:
    """Costs that are all alike: how long a prediction takes does not depend on them."""
    links = np.tile([1e-5, 1e-5, 1e-10, 1.05], (1 + DRAWS, 1))
    costs = EncodeCost(np.tile([1e-5, 1e-9, 1e-11], (1 + DRAWS, 1)))
    model = LinkModel(dict.fromkeys(FORMS, links), dict.fromkeys(FORMS, np.ones(1 + DRAWS)))
    return Profile(model, dict.fromkeys(CANDIDATES, costs), 1.1, None, 2)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


if __name__ == "__main__":
    sys.exit(main())
