"""What would be if something about a job were different: buckets, device, encoder, overlap. Every figure is modelled.

The questions are those of Agarwal, Wang, Venkataraman and Papailiopoulos, On the Utility of Gradient Compression in
Distributed Training Systems (MLSys 2022), asked of taut's own model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taut.distributed._advise import compared_names, interval, listed, predict
from taut.distributed._choices import Recommendation, recommend
from taut.distributed._compressors import NoCompression
from taut.distributed._profile import Profile
from taut.distributed._step_time import AS_IS, Change, Cluster, bucket_plan
from taut.distributed._workload import BUCKET_BYTES, Workload
from taut.stats import Interval

FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""How many times as fast a device or an encoder might be."""
LARGER_MESSAGES = (0.0, 1.0, 2.0)
"""How many times an encoder's gain in speed its messages might grow; 0 for messages that stay as they are."""
OVERLAP_COMPARED = ("PowerSGD rank 4", "ACP-SGD rank 4")


@dataclass(frozen=True)
class WhatIfs:
    """What would be if something were different; step times by the names of compressors.

    Attributes:
        recommendation: over sizes of buckets.
        compute: seconds with forward and backward pass that are `FACTORS` times as fast.
        encoders: for each of `LARGER_MESSAGES`, seconds with encoders that are `FACTORS` times as fast.
        overlap: for each of `OVERLAP_COMPARED`, seconds where gradients travel beside the backward pass, and after it.
        required: how many times smaller gradients have to be to hide behind the backward pass, as in
            `required_compression`.
    """

    recommendation: Recommendation
    compute: Mapping[str, Sequence[Interval]]
    encoders: Mapping[float, Mapping[str, Sequence[Interval]]]
    overlap: Mapping[str, Sequence[Interval]]
    required: Interval

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        said = [self.recommendation.answer]
        required = self.required
        if math.isinf(required.estimate):
            said.append("linear scaling: no smaller messages hide behind the backward pass, latency alone is too much")
        elif required.estimate <= 1:
            said.append("linear scaling: fp32 gradients hide behind the backward pass as they are")
        else:
            said.append(
                f"linear scaling: gradients {required.estimate:.1f}x [{required.low:.1f}, {required.high:.1f}] smaller "
                "would hide behind the backward pass"
            )
        if self.overlap:
            compared = [
                f"{name} {beside.estimate * 1e3:.1f} ms beside the backward pass, {after.estimate * 1e3:.1f} after it"
                for name, (beside, after) in self.overlap.items()
            ]
            said.append(f"overlap: {'; '.join(compared)}")
        return said

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; what is infinite is null."""
        return {
            "kind": "modelled",
            "recommendation": self.recommendation.answer,
            "choices": [one.to_dict() for one in self.recommendation.choices],
            "faster_compute": {"factors": list(FACTORS), "seconds": _listed(self.compute)},
            "faster_encoders": [
                {"size_for_speed": larger, "factors": list(FACTORS), "seconds": _listed(found)}
                for larger, found in self.encoders.items()
            ],
            "overlap": {
                name: {"beside_backward": listed(beside), "after_backward": listed(after)}
                for name, (beside, after) in self.overlap.items()
            },
            "required_compression": [one if math.isfinite(one) else None for one in listed(self.required)],
        }


def explore(
    workload: Workload,
    cluster: Cluster,
    profile: Profile,
    *,
    names: Sequence[str] | None = None,
    bucket_bytes: int = BUCKET_BYTES,
    change: Change = AS_IS,
) -> WhatIfs:
    """Ask all questions of `WhatIfs` about a job; the arguments are those of `advise`.

    Raises:
        ArgumentError: a name that the profile has no costs of.
    """
    compared = compared_names(names, profile)
    encoding = [name for name in compared if name != "fp32"]
    overlapped = [name for name in OVERLAP_COMPARED if name in profile.costs]

    def swept(these: Sequence[str], changes: Sequence[Change]) -> dict[str, list[Interval]]:
        return sweep_changes(workload, cluster, profile, these, changes, bucket_bytes=bucket_bytes)

    return WhatIfs(
        recommendation=recommend(workload, cluster, profile, names=names, change=change),
        compute=swept(compared, [replace(change, compute=factor * change.compute) for factor in FACTORS]),
        encoders={
            larger: swept(encoding, [faster_encoder(factor, larger, change) for factor in FACTORS])
            for larger in LARGER_MESSAGES
        },
        overlap=swept(overlapped, [replace(change, overlap=overlap) for overlap in (True, False)]),
        required=required_compression(workload, cluster, profile, bucket_bytes=bucket_bytes, change=change),
    )


def sweep_changes(
    workload: Workload,
    cluster: Cluster,
    profile: Profile,
    names: Sequence[str],
    changes: Sequence[Change],
    *,
    bucket_bytes: int = BUCKET_BYTES,
) -> dict[str, list[Interval]]:
    """Step times over changes, for each compressor by name."""
    return {
        name: [interval(predict(workload, name, cluster, profile, bucket_bytes, change)) for change in changes]
        for name in names
    }


def faster_encoder(factor: float, larger: float, change: Change = AS_IS) -> Change:
    """An encoder that is `factor` times as fast, for messages that are `larger * factor` times as large, at least 1."""
    return replace(change, encoder=factor * change.encoder, size=max(1.0, larger * factor) * change.size)


def required_compression(
    workload: Workload,
    cluster: Cluster,
    profile: Profile,
    *,
    bucket_bytes: int = BUCKET_BYTES,
    change: Change = AS_IS,
) -> Interval:
    """How many times smaller fp32 gradients have to be so that all-reduces hide behind the backward pass.

    An encoder that costs nothing is assumed. What hides is all but the last bucket, which nothing can hide: it is ready
    when the backward pass ends.

    Returns:
        1 where nothing has to be done, infinity where latency alone takes too long.
    """
    plan = bucket_plan(workload, NoCompression(), cluster.ranks, bucket_bytes)
    if "all_reduce" not in plan.messages:  # one rank
        return interval(np.ones(1))
    messages, sizes = (one[:-1] for one in plan.messages["all_reduce"])

    def remaining(bytes_share: float) -> np.ndarray:
        """Seconds of the all-reduces from each bucket on."""
        seconds = profile.links.series_seconds(
            "all_reduce",
            messages,
            bytes_share * sizes,
            cluster.ranks,
            cluster.bandwidth,
            crowding=cluster.crowding,
        )
        return np.cumsum(seconds[:, ::-1], axis=1)[:, ::-1]

    computing = cluster.slowdown * cluster.crowding / change.compute
    room = computing * (plan.ready[-1] - plan.ready[:-1]) - remaining(0.0)
    by_bytes = remaining(1.0) - remaining(0.0)
    share = np.divide(room, by_bytes, out=np.sign(room), where=by_bytes > 0)  # of the bytes that can travel in time
    found = interval(np.clip(np.min(share, axis=1, initial=1.0), 0.0, 1.0))
    estimate, high, low = (1 / one if one > 0 else math.inf for one in (found.estimate, found.low, found.high))
    return Interval(estimate, low, high, found.confidence)


def _listed(lines: Mapping[str, Sequence[Interval]]) -> dict[str, list[list[float]]]:
    return {name: [listed(one) for one in line] for name, line in lines.items()}
