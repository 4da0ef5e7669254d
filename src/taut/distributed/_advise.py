"""Whether a compressor will help a job on its links, by the model, and where that turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from taut.distributed._candidates import BASELINES, CANDIDATES, KEPT, caution
from taut.distributed._profile import Profile
from taut.distributed._step_time import AS_IS, Change, Cluster, sent_bytes, step_seconds
from taut.distributed._workload import BUCKET_BYTES, Workload
from taut.errors import ArgumentError
from taut.stats import Interval

Verdict: TypeAlias = Literal["helps", "no evidence", "hurts"]

_CONFIDENCE = 0.95
_WORTH_WHILE = 1.01
BANDWIDTHS = np.geomspace(1e6 / 8, 1e12 / 8, 61)  # 1 Mbit/s to 1 Tbit/s


@dataclass(frozen=True)
class Prediction:
    """What the model says of one compressor; every figure but one is modelled.

    Attributes:
        name: of the compressor among `CANDIDATES`.
        seconds: of a step.
        sent: bytes that each rank sends in a step.
        kept: share of the squared norm of other gradients that a first exchange has kept, as in `KEPT`; measured.
        speedup: for each baseline, its step time over this one.
        verdict: against the faster of the baselines.
        crossover: bytes per second of a link below which it beats the faster baseline by what a verdict asks for, 1 %;
            None if it nowhere does, and infinite if it does on every link.
    """

    name: str
    seconds: Interval
    sent: float
    kept: float
    speedup: dict[str, Interval]
    verdict: Verdict
    crossover: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "seconds": listed(self.seconds),
            "sent_bytes": self.sent,
            "kept_of_reference": self.kept,
            "speedup": {name: listed(one) for name, one in self.speedup.items()},
            "verdict": self.verdict,
            "crossover_bytes_per_second": "any"
            if self.crossover is not None and math.isinf(self.crossover)
            else self.crossover,
        }


@dataclass(frozen=True)
class Advice:
    """What the model says of a job.

    Attributes:
        workload: name of the model.
        cluster: that the job runs on.
        baseline: the faster of the baselines.
        predictions: of each compressor, the fastest first.
        doubts: those of the profile.
    """

    workload: str
    cluster: Cluster
    baseline: str
    predictions: tuple[Prediction, ...]
    doubts: tuple[str, ...] = ()

    @property
    def best(self) -> Prediction | None:
        """The fastest compressor that helps, if any does."""
        return next((one for one in self.predictions if one.verdict == "helps"), None)

    @property
    def answer(self) -> str:
        """The advice in one sentence."""
        best = self.best
        if best is None:
            return f"don't compress: no compressor is predicted to beat {self.baseline} on these links"
        told = f"{best.name}: {ratio(best.speedup[self.baseline])} over {self.baseline} (modelled)"
        other = next((one for one in self.predictions if one.verdict == "helps" and not caution(one.name)), None)
        return warned(told, best.name, other and f"{other.name}: {ratio(other.speedup[self.baseline])}")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "modelled",
            "model": self.workload,
            "ranks": self.cluster.ranks,
            "bandwidth_bytes_per_second": self.cluster.bandwidth,
            "baseline": self.baseline,
            "answer": self.answer,
            "doubts": list(self.doubts),
            "predictions": [one.to_dict() for one in self.predictions],
        }


def advise(
    workload: Workload,
    cluster: Cluster,
    profile: Profile,
    *,
    names: Sequence[str] | None = None,
    bucket_bytes: int = BUCKET_BYTES,
    crossovers: bool = True,
    change: Change = AS_IS,
) -> Advice:
    """Predict the step time of each compressor, and say which one helps.

    Args:
        workload: of one rank.
        cluster: that the job runs on.
        profile: of links, encoders and host.
        names: of `CANDIDATES` that are compared; by default all that the profile has costs of. The baselines are
            always among them.
        bucket_bytes: `bucket_cap_mb` of DistributedDataParallel.
        crossovers: whether to look for the bandwidths at which verdicts turn.
        change: what would be different, for all of them.

    Raises:
        ArgumentError: a name that the profile has no costs of.
    """
    compared = compared_names(names, profile)
    times = {name: predict(workload, name, cluster, profile, bucket_bytes, change) for name in compared}
    baseline = min(BASELINES, key=lambda name: times[name][0])
    turns = _crossovers(workload, compared, cluster, profile, bucket_bytes, change) if crossovers else {}
    predictions = []
    for name in compared:
        speedup = {one: interval(times[one] / times[name]) for one in BASELINES}
        predictions.append(
            Prediction(
                name,
                interval(times[name]),
                sent_bytes(workload, CANDIDATES[name], cluster.ranks, bucket_bytes=bucket_bytes),
                KEPT[name],
                speedup,
                "no evidence" if name == baseline else verdict(speedup[baseline]),
                turns.get(name),
            )
        )
    predictions.sort(key=lambda one: one.seconds.estimate)
    return Advice(workload.name, cluster, baseline, tuple(predictions), profile.doubts)


def predict(
    workload: Workload,
    name: str,
    cluster: Cluster,
    profile: Profile,
    bucket_bytes: int = BUCKET_BYTES,
    change: Change = AS_IS,
) -> np.ndarray:
    """Seconds of a step with a compressor of `CANDIDATES`, (1 + draws,), the estimate first."""
    return step_seconds(
        workload,
        CANDIDATES[name],
        profile.costs[name],
        cluster,
        profile.links,
        bucket_bytes=bucket_bytes,
        change=change,
    )


def sweep(
    workload: Workload,
    cluster: Cluster,
    profile: Profile,
    names: Sequence[str],
    bandwidths: Sequence[float],
    *,
    bucket_bytes: int = BUCKET_BYTES,
    change: Change = AS_IS,
) -> dict[str, list[Interval]]:
    """Step times over bandwidths, for each compressor by name."""
    clusters = [replace(cluster, bandwidth=bandwidth) for bandwidth in bandwidths]
    return {
        name: [interval(predict(workload, name, one, profile, bucket_bytes, change)) for one in clusters]
        for name in names
    }


def compared_names(names: Sequence[str] | None, profile: Profile) -> list[str]:
    """The baselines and the named compressors, all that the profile has costs of if None.

    Raises:
        ArgumentError: a name that the profile has no costs of.
    """
    compared = list(dict.fromkeys([*BASELINES, *(names if names is not None else profile.costs)]))
    for name in compared:
        if name not in profile.costs:
            raise ArgumentError("compressor", name, expected=f"one of {', '.join(profile.costs)}")
    return compared


def verdict(speedup: Interval) -> Verdict:
    """Whether an interval of speed-ups lies above 1 by what is worth the trouble, around it or below."""
    if speedup.low > _WORTH_WHILE:
        return "helps"
    return "hurts" if speedup.high < 1 else "no evidence"


def warned(told: str, name: str, other: str | None) -> str:
    """An advice with the caution that its compressor needs, and the first that helps and needs none."""
    if not caution(name):
        return told
    instead = "none that keeps half or more helps" if other is None else f"of those that keep half or more, {other}"
    return f"{told}, but it {caution(name)}; {instead}"


def ratio(one: Interval) -> str:
    """An interval of speed-ups."""
    return f"{one.estimate:.2f}x [{one.low:.2f}, {one.high:.2f}]"


def interval(draws: np.ndarray) -> Interval:
    """The estimate and the interval of draws, (1 + draws,), the estimate first."""
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) > 1 else (draws[0], draws[0])
    estimate = float(draws[0])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), _CONFIDENCE)


def _crossovers(
    workload: Workload,
    names: Sequence[str],
    cluster: Cluster,
    profile: Profile,
    bucket_bytes: int,
    change: Change,
) -> dict[str, float | None]:
    """For each compressor the highest bandwidth at which it is worth while, between two of a grid."""
    times = {
        name: np.array(
            [
                predict(workload, name, replace(cluster, bandwidth=float(one)), profile, bucket_bytes, change)[0]
                for one in BANDWIDTHS
            ]
        )
        for name in names
    }
    base = np.minimum(*(times[name] for name in BASELINES))
    found: dict[str, float | None] = {}
    for name in names:
        if name in BASELINES:
            continue
        gain = np.log(base / times[name] / _WORTH_WHILE)  # (bandwidths,)
        better = np.flatnonzero(gain > 0)
        if not len(better):
            found[name] = None
        elif better[-1] == len(gain) - 1:
            found[name] = math.inf
        else:
            last = better[-1]
            share = gain[last] / (gain[last] - gain[last + 1])
            found[name] = float(BANDWIDTHS[last] ** (1 - share) * BANDWIDTHS[last + 1] ** share)
    return found


def listed(one: Interval) -> list[float]:
    """As plain JSON values."""
    return [one.estimate, one.low, one.high]
