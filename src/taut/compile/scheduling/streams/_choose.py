"""Which program of streams is kept: the sequential one, unless another is surely faster."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from itertools import repeat

from taut.compile.scheduling._choose import ALPHA, MIN_EFFECT, verdict_on
from taut.compile.scheduling._report import Verdict
from taut.compile.scheduling.streams._streams import Streams
from taut.stats import Clock, compare

_ROUNDS = 30
_BLOCK = 0.003  # seconds


class ReplayArm:
    """A captured program as one side of a comparison, timed by the device.

    Args:
        name: how messages call it.
        replay: what is timed.
        streams: of the device.
    """

    needs_warm_up = False

    def __init__(self, name: str, replay: Callable[[], object], streams: Streams) -> None:
        self.name = name
        self._replay = replay
        self._streams = streams

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        """Seconds of the device for `repeats` replays, after `warm_up` untimed ones; the clock is not asked."""
        for _ in repeat(None, warm_up):
            self._replay()
        return self._streams.time(self._replay, repeats)


def take_turns(replays: Mapping[str, Callable[[], object]], streams: Streams, seconds: float) -> dict[str, float]:
    """Seconds of a replay of each, the least mean of blocks that take turns in random order.

    Args:
        replays: what is timed, by name.
        streams: of the device.
        seconds: wall seconds to spend at most; each is timed once even if that takes longer.
    """
    counts = {}
    for name, replay in replays.items():
        streams.time(replay, 1)
        counts[name] = max(1, int(_BLOCK / max(streams.time(replay, 1), 1e-9)))
    best = dict.fromkeys(replays, math.inf)
    order = list(replays)
    draw = random.Random(0)
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        draw.shuffle(order)
        for name in order:
            best[name] = min(best[name], streams.time(replays[name], counts[name]) / counts[name])
        if time.perf_counter() - began > seconds:
            break
    return best


def choose(
    replays: Mapping[str, Callable[[], object]],
    streams: Streams,
    budget: float,
    progress: Callable[[float], None],
) -> tuple[str, dict[str, float], Verdict | None]:
    """Time all in turns, then the best beside the first, in randomised pairs until the verdict is clear.

    Args:
        replays: the sequential program first.
        streams: of the device.
        budget: seconds for the turns, and again for the pairs.
        progress: told the share that is done.

    Returns:
        The name of what to keep, seconds of a replay of each, and the verdict; None where there is no other.
    """
    times = take_turns(replays, streams, budget)
    first, *others = replays
    if not others:
        return first, times, None
    best = min(others, key=times.__getitem__)
    result = compare(
        ReplayArm(first, replays[first], streams),
        ReplayArm(best, replays[best], streams),
        alpha=ALPHA,
        min_effect=MIN_EFFECT,
        budget=budget,
        progress=lambda _, elapsed: progress(min(1.0, elapsed / budget)),
    )
    return (best if result.verdict == "faster" else first), times, verdict_on(best, result)
