"""Times of parallel programs on a host that others use too: only calls that had all of their cores count."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from taut.runtime import Session, regions_run_alone, worker_seconds
from taut.stats import available_cores

_BLOCK = 5e-4
"""Seconds of a timed block: short, so that many find all cores free on a busy host."""
_LONG = 2e-2
"""Seconds of a call beside which warming up does not count."""
_WHOLE = 0.95
"""The share of their cores' time that threads of an undisturbed block get; they spin while they wait."""


class TimedSession:
    """A session and its times.

    Args:
        session: what to time.
        inputs: of a call.
        workers: threads that it keeps busy.

    Attributes:
        undisturbed: seconds of a call in blocks during which, and just before which, every thread had a core.
        every: seconds of a call in all blocks.
    """

    def __init__(self, session: Session, inputs: Sequence[Any], workers: int) -> None:
        self._session, self._inputs, self._workers = session, inputs, min(workers, available_cores())
        self.undisturbed: list[float] = []
        self.every: list[float] = []
        call = session.time(inputs, 1)
        if call < _LONG:
            call = min(session.time(inputs, 1) for _ in range(4))
        self._warm_up = call < _LONG
        self._repeats = max(1, int(_BLOCK / call))

    def time(self) -> None:
        """Time a block; after calls that wake the workers and warm the caches of all cores, unless calls take long."""
        if self._warm_up:
            self._session.time(self._inputs, 1)
        alone = regions_run_alone()
        began, own, others = time.perf_counter(), time.thread_time(), worker_seconds()
        if self._warm_up:
            self._session.time(self._inputs, 1)
        seconds = self._session.time(self._inputs, self._repeats)
        own, others = time.thread_time() - own, worker_seconds() - others
        wall = time.perf_counter() - began
        self.every.append(seconds)
        together = self._workers == 1 or (
            regions_run_alone() == alone and others >= _WHOLE * (self._workers - 1) * wall
        )
        if together and own >= _WHOLE * wall:
            self.undisturbed.append(seconds)

    def times(self) -> list[float]:
        """The undisturbed times, all where there are none."""
        return self.undisturbed or self.every


def time_sessions(sessions: Mapping[str, TimedSession], samples: int, seconds: float) -> None:
    """Time sessions in turn, in an order drawn anew for each round.

    Args:
        sessions: by name.
        samples: undisturbed blocks after which a session has enough.
        seconds: wall seconds to spend, after at least one round.
    """
    draw = random.Random(0)
    end = time.perf_counter() + seconds
    order = list(sessions.values())
    while True:
        draw.shuffle(order)
        for session in order:
            session.time()
        if time.perf_counter() > end or all(len(session.undisturbed) >= samples for session in order):
            return
