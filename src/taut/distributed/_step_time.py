"""How long a training step takes, by the model: the backward pass and the exchange of its buckets, side by side.

After Agarwal, Wang, Venkataraman and Papailiopoulos, On the Utility of Gradient Compression in Distributed Training
Systems (MLSys 2022), whose closed form holds for equal buckets; here each bucket has its own time at which it is ready.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from taut.distributed._compressor import Compressor
from taut.distributed._workload import BUCKET_BYTES, Workload
from taut.errors import ArgumentError
from taut.hardware import FORMS, LinkModel


@dataclass(frozen=True)
class EncodeCost:
    """What encoding and decoding cost a rank.

    Attributes:
        coefficients: (1 + draws, 3), the estimate first: seconds for each parameter, for each element, and for each
            element and rank whose message is decoded.
    """

    coefficients: np.ndarray

    def seconds(self, parameters: int, elements: int, ranks: int) -> np.ndarray:
        """Of one exchange, (1 + draws,)."""
        return self.coefficients @ np.array([parameters, elements, elements * ranks], dtype=np.float64)


@dataclass(frozen=True)
class Cluster:
    """The hosts of a job.

    Attributes:
        ranks: of the job.
        bandwidth: bytes per second that each rank can send; None where no link binds.
        crowding: ranks that share a core where there are more ranks than cores, else 1.
        competes: encoding and the link's software take time from the backward pass: a GPU, or one core a rank.
        slowdown: of the backward pass by concurrent communication, beyond the processor time that this needs.
    """

    ranks: int
    bandwidth: float | None
    crowding: float = 1.0
    competes: bool = True
    slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """What would be different from the job as it is.

    Args:
        compute: how many times as fast forward and backward pass are.
        encoder: how many times as fast encoding and decoding are.
        size: how many times as large messages are.
        overlap: gradients travel beside the backward pass; else after it.

    Raises:
        ArgumentError: a factor is not a number above 0.
    """

    compute: float = 1.0
    encoder: float = 1.0
    size: float = 1.0
    overlap: bool = True

    def __post_init__(self) -> None:
        for name in ("compute", "encoder", "size"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(name, getattr(self, name), expected="a factor above 0")


AS_IS = Change()


def step_seconds(
    workload: Workload,
    compressor: Compressor,
    cost: EncodeCost,
    cluster: Cluster,
    links: LinkModel,
    *,
    bucket_bytes: int = BUCKET_BYTES,
    change: Change = AS_IS,
) -> np.ndarray:
    """Seconds of a step, (1 + draws,): the estimate, then draws of what it may be.

    Buckets are encoded, sent and decoded one after the other, beside the backward pass. Where both use one processor
    the work of the exchange delays it.
    """
    plan = bucket_plan(workload, compressor, cluster.ranks, bucket_bytes)
    crowding = cluster.crowding
    computing = crowding / change.compute * (cluster.slowdown if change.overlap else 1.0)
    coding = crowding / change.encoder * (cost.coefficients @ plan.encoded)  # (1 + draws, buckets)
    sending, work = coding.copy(), coding.copy()
    for collective, (messages, sizes) in plan.messages.items():
        larger = change.size * sizes
        sending += links.series_seconds(
            collective, messages, larger, cluster.ranks, cluster.bandwidth, crowding=crowding
        )
        work += crowding * links.software(collective, 1.0, cluster.ranks)[:, None] * larger
    backward = computing * workload.backward
    competes = cluster.competes and change.overlap
    begin = computing * plan.ready if change.overlap else np.full_like(plan.ready, backward)
    if competes:
        begin = begin + np.cumsum(work, axis=1) - work
    # The link is busy from some bucket on until the end: from the one for which that takes longest.
    done = np.cumsum(sending, axis=1)
    finish = (begin - done + sending).max(axis=1) + done[:, -1]
    computed = backward + (work.sum(axis=1) if competes else 0.0)
    return crowding * workload.other / change.compute + np.maximum(finish, computed)


def sent_bytes(workload: Workload, compressor: Compressor, ranks: int, *, bucket_bytes: int = BUCKET_BYTES) -> float:
    """Bytes that each rank sends in a step."""
    messages = bucket_plan(workload, compressor, ranks, bucket_bytes).messages
    return sum(float(sizes.sum()) * FORMS[name].counts(ranks)[1] for name, (_, sizes) in messages.items())


class BucketPlan(NamedTuple):
    """The buckets of a step.

    Attributes:
        ready: (buckets,) seconds from the start of the backward pass until each is complete.
        encoded: (3, buckets) parameters, elements, and elements times ranks.
        messages: for each collective, (buckets,) how many each bucket needs, and (buckets,) their bytes.
    """

    ready: np.ndarray
    encoded: np.ndarray
    messages: Mapping[str, tuple[np.ndarray, np.ndarray]]


@lru_cache(maxsize=4096)
def bucket_plan(workload: Workload, compressor: Compressor, ranks: int, bucket_bytes: int) -> BucketPlan:
    """The buckets of a step and what they send."""
    buckets = workload.buckets(bucket_bytes)
    elements = np.array([bucket.elements for bucket in buckets], dtype=np.float64)
    parameters = [len(bucket.shapes) for bucket in buckets]
    messages: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for place, bucket in enumerate(buckets):
        for message in compressor.traffic(bucket.shapes, ranks).messages:
            if message.size > 0:
                counts, sizes = messages.setdefault(
                    message.collective, (np.zeros(len(buckets)), np.zeros(len(buckets)))
                )
                counts[place] += 1
                sizes[place] += message.size
    ready = np.array([bucket.ready for bucket in buckets])
    return BucketPlan(ready, np.stack([parameters, elements, elements * ranks]), messages)
