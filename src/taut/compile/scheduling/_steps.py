"""What the steps of a program take in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from taut.compile._program import Lowered
from taut.runtime import Session

_MOST_CALLS, _SECONDS = 30, 1.0
"""Of the calls that are profiled: those of a large network take long, and vary little."""


def step_seconds(lowered: Lowered, session: Session, inputs: Sequence[Any]) -> list[float]:
    """What each step of function 0 takes, the least of several calls; 0 for steps that are no instruction.

    Args:
        lowered: a sequential program.
        session: runs it.
        inputs: of a call.
    """
    step_at = {pc: step for step, pc in enumerate(lowered.instructions[0])}
    times: list[list[float]] = [[] for _ in step_at]
    began = time.perf_counter()
    for _ in range(_MOST_CALLS):
        for entry in session.profile(*inputs):
            if entry.function == 0 and entry.instruction in step_at:
                times[step_at[entry.instruction]].append(entry.nanoseconds * 1e-9)
        if time.perf_counter() - began > _SECONDS:
            break
    return [min(own, default=0.0) for own in times]
