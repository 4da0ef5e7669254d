"""Which program is kept: the sequential one, unless another is surely faster."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from taut.compile.scheduling._plan import Candidate
from taut.compile.scheduling._report import Verdict
from taut.compile.scheduling._undisturbed import TimedSession, time_sessions
from taut.stats import PairedResult, compare

_SAMPLES = 30
ALPHA = 0.01
MIN_EFFECT = 0.01
_TURNS = 1 / 3
"""The share of the time in which all candidates take turns; the rest is for the best and the sequential program."""
_CALLS = 10
"""Of a candidate in its turns, at least."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a comparison found.

    Attributes:
        kept: the candidate to keep.
        seconds: of a call of each that was timed, the least mean.
        verdict: the best of the others against the sequential program; None where there is no other.
    """

    kept: Candidate
    seconds: dict[str, float]
    verdict: Verdict | None


def choose(
    candidates: Sequence[Candidate],
    inputs: Sequence[Any],
    seconds: float,
    progress: Callable[[float], None] = lambda _: None,
) -> Choice:
    """Time candidates in turns, then the best beside the first, in randomised pairs until the verdict is clear.

    The turns count only blocks in which every thread had a core, and so find the best of the parallel programs; the
    pairs count everything, and so keep the sequential program on a host that has no second core to give.

    Args:
        candidates: the sequential program first. Where calls take long only those predicted best are timed.
        inputs: of a call.
        seconds: to spend.
        progress: told the share that is done.
    """
    timed = affordable(candidates, inputs, _TURNS * seconds)
    times = take_turns(timed, inputs, _TURNS * seconds)
    first, others = candidates[0], timed[1:]
    if not others:
        return Choice(first, times, None)
    best = min(others, key=lambda one: times[one.name])
    budget = (1 - _TURNS) * seconds
    result = compare(
        _call(first, inputs),
        _call(best, inputs),
        alpha=ALPHA,
        min_effect=MIN_EFFECT,
        budget=budget,
        progress=lambda _, elapsed: progress(min(1.0, elapsed / budget)),
    )
    return Choice(best if result.verdict == "faster" else first, times, verdict_on(best.name, result))


def verdict_on(name: str, result: PairedResult) -> Verdict:
    """What a report says of a comparison of that candidate with the sequential program."""
    low, high = (end if 0 < end < math.inf else None for end in (result.low, result.high))
    return Verdict(name, result.verdict, result.ratio, low, high, result.confidence, result.pairs)


def take_turns(candidates: Sequence[Candidate], inputs: Sequence[Any], seconds: float) -> dict[str, float]:
    """Seconds of a call of each, the least of blocks in which every thread had a core, if there were any.

    Args:
        candidates: in any order.
        inputs: of a call.
        seconds: wall seconds to spend at most.
    """
    timed = {one.name: TimedSession(one.session, inputs, one.threads) for one in candidates}
    time_sessions(timed, _SAMPLES, seconds)
    return {name: min(own.times()) for name, own in timed.items()}


def affordable(candidates: Sequence[Candidate], inputs: Sequence[Any], seconds: float) -> list[Candidate]:
    """The first candidate, and as many of those predicted best as there is time for, but one at least."""
    first, *others = candidates
    count = int(seconds / (_CALLS * first.session.time(inputs, 1)))
    return [first, *sorted(others, key=lambda one: one.predicted)[: max(1, count - 1)]]


def _call(candidate: Candidate, inputs: Sequence[Any]) -> Callable[[], object]:
    session = candidate.session
    return lambda: session(*inputs)
