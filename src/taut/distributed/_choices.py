"""The best of every compressor, level and size of buckets, by the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taut.distributed._advise import Verdict, compared_names, interval, listed, predict, ratio, verdict, warned
from taut.distributed._candidates import BASELINES, caution
from taut.distributed._profile import Profile
from taut.distributed._step_time import AS_IS, Change, Cluster
from taut.distributed._workload import Workload
from taut.errors import ArgumentError
from taut.stats import Interval

BUCKET_CAPS = tuple(megabytes * 2**20 for megabytes in (1, 2, 5, 10, 25, 50, 100, 250))
"""Sizes of buckets that are compared, in bytes: `bucket_cap_mb` of DistributedDataParallel from 1 to 250."""


@dataclass(frozen=True)
class Choice:
    """A compressor and a size of buckets; its figures are modelled.

    Attributes:
        name: of the compressor among `CANDIDATES`.
        bucket_bytes: `bucket_cap_mb` of DistributedDataParallel.
        seconds: of a step.
        speedup: over the fastest baseline in the buckets that suit it best.
        verdict: likewise.
    """

    name: str
    bucket_bytes: int
    seconds: Interval
    speedup: Interval
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "bucket_bytes": self.bucket_bytes,
            "seconds": listed(self.seconds),
            "speedup": listed(self.speedup),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Recommendation:
    """Every compressor in buckets of every size.

    Attributes:
        baseline: the fastest of the baselines in any buckets.
        choices: all, the fastest first.
    """

    baseline: Choice
    choices: tuple[Choice, ...]

    @property
    def best(self) -> Choice:
        """The fastest choice that helps; the baseline if none does."""
        return next((one for one in self.choices if one.verdict == "helps"), self.baseline)

    @property
    def answer(self) -> str:
        """The recommendation in one sentence."""
        base, best = self.baseline, self.best
        if best is base:
            return f"over sizes of buckets: nothing is predicted to beat {_described(base)}"
        told = f"over sizes of buckets: {_described(best)}, {ratio(best.speedup)} over {_described(base)}"
        other = next((one for one in self.choices if one.verdict == "helps" and not caution(one.name)), None)
        return warned(told, best.name, other and f"{_described(other)}, {ratio(other.speedup)}")

    def lines(self) -> dict[str, list[Interval]]:
        """Step times of each compressor over sizes of buckets, ascending."""
        found: dict[str, list[Interval]] = {}
        for one in sorted(self.choices, key=lambda choice: choice.bucket_bytes):
            found.setdefault(one.name, []).append(one.seconds)
        return found


def recommend(
    workload: Workload,
    cluster: Cluster,
    profile: Profile,
    *,
    names: Sequence[str] | None = None,
    caps: Sequence[int] = BUCKET_CAPS,
    change: Change = AS_IS,
) -> Recommendation:
    """Compare all compressors and levels in buckets of all sizes.

    Args:
        workload: of one rank.
        cluster: that the job runs on.
        profile: of links, encoders and host.
        names: of `CANDIDATES`; by default all that the profile has costs of. The baselines are always among them.
        caps: sizes of buckets in bytes.
        change: what would be different, for all of them.

    Raises:
        ArgumentError: a name that the profile has no costs of, or a size that is not positive.
    """
    if not caps or min(caps) < 1:
        raise ArgumentError("caps", list(caps), expected="sizes of buckets of at least one byte")
    times = {
        (name, cap): predict(workload, name, cluster, profile, cap, change)
        for name in compared_names(names, profile)
        for cap in sorted(set(caps))
    }
    base = min((key for key in times if key[0] in BASELINES), key=lambda key: times[key][0])
    choices = []
    for key, seconds in times.items():
        speedup = interval(times[base] / seconds)
        told: Verdict = "no evidence" if key == base else verdict(speedup)
        choices.append(Choice(*key, interval(seconds), speedup, told))
    choices.sort(key=lambda one: one.seconds.estimate)
    return Recommendation(next(one for one in choices if (one.name, one.bucket_bytes) == base), tuple(choices))


def _described(one: Choice) -> str:
    return f"{one.name} in buckets of {one.bucket_bytes / 2**20:g} MB"
