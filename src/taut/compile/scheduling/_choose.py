"""Which program is kept: the sequential one, unless another is surely faster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from taut.compile.scheduling._plan import Candidate
from taut.compile.scheduling._report import Verdict
from taut.stats import compare

_ROUNDS = 12
_BLOCK = 2e-3
_ALPHA = 0.01
_MIN_EFFECT = 0.01


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a comparison found.

    Attributes:
        kept: the candidate to keep.
        seconds: of a call of each, the least mean.
        verdict: the best of the others against the sequential program; None where there is no other.
    """

    kept: Candidate
    seconds: dict[str, float]
    verdict: Verdict | None


def choose(
    candidates: Sequence[Candidate], inputs: Sequence[Any], budget: float, progress: Callable[[float], None]
) -> Choice:
    """Time all candidates in turns, then the best beside the first, in randomised pairs until the verdict is clear.

    Args:
        candidates: the sequential program first.
        inputs: of a call.
        budget: seconds for the pairs.
        progress: told the share that is done.
    """
    times = take_turns(candidates, inputs)
    first, others = candidates[0], candidates[1:]
    if not others:
        return Choice(first, times, None)
    best = min(others, key=lambda one: times[one.name])
    result = compare(
        _call(first, inputs),
        _call(best, inputs),
        alpha=_ALPHA,
        min_effect=_MIN_EFFECT,
        budget=budget,
        progress=lambda _, elapsed: progress(min(1.0, elapsed / budget)),
    )
    verdict = Verdict(
        best.name, result.verdict, result.ratio, result.low, result.high, result.confidence, result.pairs
    )
    return Choice(best if result.verdict == "faster" else first, times, verdict)


def take_turns(candidates: Sequence[Candidate], inputs: Sequence[Any]) -> dict[str, float]:
    """Seconds of a call of each, the least of several means."""
    repeats = {}
    for one in candidates:
        one.session.time(inputs, 2)
        repeats[one.name] = max(1, int(_BLOCK / max(one.session.time(inputs, 2), 1e-7)))
    times: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for one in candidates:
            seconds = one.session.time(inputs, repeats[one.name])
            times[one.name] = min(seconds, times.get(one.name, seconds))
    return times


def _call(candidate: Candidate, inputs: Sequence[Any]) -> Callable[[], object]:
    session = candidate.session
    return lambda: session(*inputs)
