"""How long a training step takes, by the model: the backward pass and the exchange of its buckets, side by side.

After Agarwal, Wang, Venkataraman and Papailiopoulos, On the Utility of Gradient Compression in Distributed Training
Systems (MLSys 2022), whose closed form holds for equal buckets; here each bucket has its own time at which it is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from taut.distributed._compressor import Compressor
from taut.distributed._workload import BUCKET_BYTES, Workload
from taut.hardware import LinkModel


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


def step_seconds(
    workload: Workload,
    compressor: Compressor,
    cost: EncodeCost,
    cluster: Cluster,
    links: LinkModel,
    *,
    bucket_bytes: int = BUCKET_BYTES,
) -> np.ndarray:
    """Seconds of a step, (1 + draws,): the estimate, then draws of what it may be.

    Buckets are encoded, sent and decoded one after the other, beside the backward pass. Where both use one processor
    the work of the exchange delays it.
    """
    crowding = cluster.crowding
    draws = len(cost.coefficients)
    finish, stolen = np.zeros(draws), np.zeros(draws)
    for ready, parameters, elements, messages in _plan(workload, compressor, cluster.ranks, bucket_bytes):
        coding = crowding * cost.seconds(parameters, elements, cluster.ranks)
        sending, software = np.zeros(draws), np.zeros(draws)
        for collective, size in messages:
            sending += links.seconds(collective, size, cluster.ranks, cluster.bandwidth, crowding=crowding)
            software += crowding * links.software(collective, size, cluster.ranks)
        begin = cluster.slowdown * crowding * ready + (stolen if cluster.competes else 0.0)
        finish = np.maximum(begin, finish) + coding + sending
        stolen = stolen + coding + software
    computed = cluster.slowdown * crowding * workload.backward + (stolen if cluster.competes else 0.0)
    return crowding * workload.other + np.maximum(finish, computed)


def sent_bytes(workload: Workload, compressor: Compressor, ranks: int, *, bucket_bytes: int = BUCKET_BYTES) -> float:
    """Bytes that each rank sends in a step."""
    return sum(compressor.traffic(bucket.shapes, ranks).sent(ranks) for bucket in workload.buckets(bucket_bytes))


@lru_cache(maxsize=4096)
def _plan(
    workload: Workload, compressor: Compressor, ranks: int, bucket_bytes: int
) -> Sequence[tuple[float, int, int, Sequence[tuple[str, float]]]]:
    """For each bucket: when it is ready, its parameters and elements, and its messages as (collective, bytes)."""
    plan = []
    for bucket in workload.buckets(bucket_bytes):
        messages = compressor.traffic(bucket.shapes, ranks).messages
        sizes = tuple((message.collective, message.size) for message in messages)
        plan.append((bucket.ready, len(bucket.shapes), bucket.elements, sizes))
    return tuple(plan)
