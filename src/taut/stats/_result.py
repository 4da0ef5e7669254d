"""What a comparison found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from taut.errors import ArgumentError
from taut.stats._signed_rank import smallest_sample

Verdict = Literal["faster", "no evidence", "slower"]
Stopped = Literal["decided", "equivalent", "budget", "max_pairs"]


@dataclass(frozen=True)
class PairedResult:
    """The outcome of `compare`.

    Attributes:
        verdict: on the candidate: "faster", "slower", or "no evidence" of a difference larger than `min_effect`.
        ratio: speed-up, the baseline's time by the candidate's; above 1 the candidate is faster.
        low: lower end of the interval for `ratio`; 0 if the sample is too small to have one.
        high: upper end of the interval; infinite if the sample is too small.
        confidence: probability with which the interval holds, optional stopping included.
        min_effect: differences up to this share count as none.
        pairs: number of pairs of blocks that were timed.
        baseline_seconds: median time of one call of the baseline.
        candidate_seconds: median time of one call of the candidate.
        clock: what the times were read from.
        elapsed: wall seconds that the comparison took.
        stopped: why it ended: "decided" (the interval lies beyond the indifference band), "equivalent" (it lies
            inside the band), "budget" or "max_pairs".
        log_ratios: log(baseline time / candidate time) of each pair, in the order of measuring.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    confidence: float
    min_effect: float
    pairs: int
    baseline_seconds: float
    candidate_seconds: float
    clock: str
    elapsed: float
    stopped: Stopped
    log_ratios: tuple[float, ...]

    @property
    def has_interval(self) -> bool:
        """Whether the sample was large enough for an interval."""
        return math.isfinite(self.high)

    def summary(self) -> str:
        """One line for people."""
        if not self.has_interval:
            fewest = smallest_sample(1 - self.confidence)
            budget = math.ceil(1.25 * fewest * self.elapsed / self.pairs)
            fix = f"max_pairs to {fewest}" if self.stopped == "max_pairs" else f"the budget to {budget} s"
            return (
                f"{self.verdict}: sample too small ({self.pairs} pairs in {self.elapsed:.1f} s), "
                f"{self.ratio:.3f}x without an interval; raise {fix} or more"
            )
        text = f"{self.verdict}: {self.ratio:.3f}x [{self.low:.3f}, {self.high:.3f}] at {100 * self.confidence:g} %"
        reason = {
            "decided": "",
            "equivalent": f", equal within {100 * self.min_effect:g} %",
            "budget": ", budget spent",
            "max_pairs": ", most pairs reached",
        }[self.stopped]
        return f"{text}, {self.pairs} pairs in {self.elapsed:.1f} s ({self.clock}){reason}"

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON data; a missing upper end is None."""
        data = asdict(self)
        data["high"] = self.high if self.has_interval else None
        data["log_ratios"] = list(self.log_ratios)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairedResult:
        """The result that `to_dict` described.

        Raises:
            ArgumentError: if a field is missing or has a wrong value.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in data]
        if missing:
            raise ArgumentError("paired result", sorted(data), expected=f"the fields {', '.join(missing)} as well")
        for name, allowed in (("verdict", get_args(Verdict)), ("stopped", get_args(Stopped))):
            if data[name] not in allowed:
                raise ArgumentError(name, data[name], expected=f"one of {', '.join(allowed)}")
        values = {name: data[name] for name in names}
        try:
            values["high"] = math.inf if values["high"] is None else float(values["high"])
            values["log_ratios"] = tuple(float(value) for value in values["log_ratios"])
            for name in (
                "ratio",
                "low",
                "confidence",
                "min_effect",
                "baseline_seconds",
                "candidate_seconds",
                "elapsed",
            ):
                values[name] = float(values[name])
        except (TypeError, ValueError) as error:
            raise ArgumentError("paired result", values, expected="numbers in every numeric field") from error
        return cls(**values)
