"""Schedules chosen by measurement: what steps and stages cost in the machine, and the fastest of a few schedules."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from taut.codegen import Built, Recipe, build
from taut.compile._block import Block, KernelStep
from taut.compile._generate import library_of
from taut.compile._parallel import (
    Part,
    Schedule,
    Split,
    Stages,
    apply_schedule,
    list_schedule,
    schedulable,
)
from taut.compile._program import Lowered
from taut.compile._split import can_split, split_step
from taut.runtime import Session, load

_HAND_OFF = 2e-7
"""Seconds from the end of a step on one worker to the start of another's."""
_TRANSFER = 1 / 2e10
"""Seconds to read a byte from the cache of another core."""
_WORTH_SPLITTING = 4e-6
"""Seconds of a step below which its parts would not gain what handing them over costs."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A schedule with what it takes.

    Attributes:
        schedule: the fastest; None for the sequential program.
        lowered: its program.
        session: runs it.
        seconds: of a call, by the name of the schedule.
    """

    schedule: Schedule | None
    lowered: Lowered
    session: Session
    seconds: dict[str, float]


def fastest_schedule(lowered: Lowered, inputs: Sequence[Any], workers: int = 2, *, rounds: int = 20) -> Measured:
    """Measure list schedules of whole and of split steps beside the sequential program.

    Args:
        lowered: a sequential program.
        inputs: of a call.
        workers: threads.
        rounds: how often each is timed; schedules take turns, and the median counts.
    """
    block = lowered.blocks[0]
    built = build_parts(lowered, workers)
    sequential = session_of(lowered, built)
    durations = step_seconds(lowered, sequential, inputs)
    splittable = [step for step in schedulable(block) if can_split(block.steps[step], workers)]
    large = {step: workers for step in splittable if durations[step] >= _WORTH_SPLITTING}

    def listed(parts: dict[int, int]) -> Schedule:
        return list_schedule(
            block, durations, workers, hand_off=_HAND_OFF, transfer=_TRANSFER, parts={s: Split(n) for s, n in parts.items()}
        )

    candidates: dict[str, Schedule] = {
        "list": listed({}),
        "split": listed(large),
        "intra": stages_of_parts(block, workers, large),
    }
    found: dict[str, tuple[Schedule | None, Lowered, Session]] = {"sequential": (None, lowered, sequential)}
    for name, schedule in candidates.items():
        made = apply_schedule(lowered, schedule)
        found[name] = schedule, made, session_of(made, built)
    times: dict[str, list[float]] = {name: [] for name in found}
    repeats = max(1, int(5e-3 / max(sum(durations), 1e-6)))
    for _ in range(rounds):
        for name, (_, _, session) in found.items():
            times[name].append(session.time(inputs, repeats))
    seconds = {name: statistics.median(own) for name, own in times.items()}
    return Measured(*found[min(seconds, key=lambda name: seconds[name])], seconds)


def stages_of_parts(block: Block, workers: int, parts: dict[int, int]) -> Stages:
    """One step after the other, those in `parts` on all workers."""
    groups = (
        tuple((Part(step, part, parts[step]),) for part in range(parts[step])) if step in parts else ((step,),)
        for step in schedulable(block)
    )
    return Stages(tuple(groups), workers)


def build_parts(lowered: Lowered, parts: int) -> Built:
    """The kernels of the program, and those of each of its steps in so many parts."""
    recipes = lowered.recipes()
    for block in lowered.blocks:
        for step in block.steps:
            if can_split(step, parts):
                recipes |= {
                    piece.kernel.key: piece.kernel
                    for piece in split_step(step, parts)
                    if isinstance(piece, KernelStep) and isinstance(piece.kernel, Recipe)
                }
    return build(list(recipes.values()))


def session_of(lowered: Lowered, built: Built, workers: int | None = None) -> Session:
    """A session of the program with kernels that were built before."""
    return load(lowered.program, library_of(lowered.program, built)).session(workers=workers)


def step_seconds(lowered: Lowered, session: Session, inputs: Sequence[Any], repeats: int = 15) -> list[float]:
    """What each step of function 0 takes, the median of several calls; 0 for steps that are no instruction."""
    step_at = {pc: step for step, pc in enumerate(lowered.instructions[0])}
    times: list[list[float]] = [[] for _ in step_at]
    for _ in range(repeats):
        for entry in session.profile(*inputs):
            if entry.function == 0 and entry.instruction in step_at:
                times[step_at[entry.instruction]].append(entry.nanoseconds * 1e-9)
    return [statistics.median(own) if own else 0.0 for own in times]
