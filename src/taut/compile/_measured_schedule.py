"""Schedules chosen by measurement: what steps and stages cost in the machine, and the fastest of a few schedules."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from taut.codegen import Built, Recipe, build
from taut.compile._block import Block, KernelStep
from taut.compile._dependences import accesses
from taut.compile._generate import library_of
from taut.compile._parallel import (
    Part,
    Queues,
    Schedule,
    Split,
    Stages,
    apply_schedule,
    list_schedule,
    schedulable,
)
from taut.compile._program import Lowered
from taut.compile._split import can_split, split_step
from taut.compile._views import Buffer, View
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


class StageCosts:
    """What stages cost: their groups run together in the machine, on data of their own.

    Each figure is the smallest of six means over six runs, after two to warm up, and is measured once.

    Args:
        lowered: a sequential program with static sizes.
        workers: threads.
    """

    def __init__(self, lowered: Lowered, workers: int = 2) -> None:
        self._lowered = lowered
        self._workers = workers
        self._built = build_parts(lowered, workers)
        self._known: dict[object, float] = {}

    def concurrent(self, groups: Sequence[Sequence[int]]) -> float:
        """Seconds of a stage whose groups run at the same time, each in order."""
        key = "concurrent", frozenset(tuple(group) for group in groups)
        return self._cached(key, Stages((tuple(map(tuple, groups)),), self._workers))

    def split(self, steps: Sequence[int]) -> float:
        """Seconds of steps one after the other, each on all workers where it can be split."""
        block = self._lowered.blocks[0]
        parts = {step: self._workers for step in steps if can_split(block.steps[step], self._workers)}
        stages = tuple(
            tuple((Part(step, part, parts[step]),) for part in range(parts[step])) if step in parts else ((step,),)
            for step in steps
        )
        return self._cached(("split", tuple(steps)), Stages(stages, self._workers))

    def sequential(self, steps: Sequence[int]) -> float:
        """Seconds of steps one after the other on one worker."""
        return self._cached(("sequential", tuple(steps)), Queues((tuple(steps),)))

    def _cached(self, key: object, schedule: Schedule) -> float:
        if key not in self._known:
            self._known[key] = self._measure(schedule)
        return self._known[key]

    def _measure(self, schedule: Schedule) -> float:
        part, renamed = _alone(self._lowered, schedule)
        session = session_of(apply_schedule(part, renamed), self._built)
        session.time((), 2)
        return min(session.time((), 6) for _ in range(6))


def _alone(lowered: Lowered, schedule: Schedule) -> tuple[Lowered, Schedule]:
    """The steps of a schedule as a program without arguments, and the schedule in its numbers."""
    block = lowered.blocks[0]
    groups = schedule.stages if isinstance(schedule, Stages) else (schedule.workers,)
    items = [item for stage in groups for group in stage for item in group]
    steps = sorted({item.step if isinstance(item, Part) else item for item in items})
    place = {step: number for number, step in enumerate(steps)}
    written = {buffer for step in steps for buffer, (_, writes) in accesses(block.steps[step]) if writes}
    moved: dict[Buffer, Buffer] = {}

    def buffer(old: Buffer) -> Buffer:
        if old.kind == "constant":
            return old
        if old not in moved:
            moved[old] = _stand_in(old, old in written)
        return moved[old]

    def view(old: View) -> View:
        return View(buffer(old.buffer), old.sizes, old.strides, old.offset)

    made = []
    for number in steps:
        step = block.steps[number]
        if isinstance(step, KernelStep):
            made.append(
                dataclasses.replace(step, inputs=tuple(map(view, step.inputs)), outputs=tuple(map(view, step.outputs)))
            )
        else:
            made.append(dataclasses.replace(step, source=view(step.source), target=view(step.target)))  # pyright: ignore
    alone = Block("stage", (), tuple(made), (), ())
    graph = dataclasses.replace(lowered.graph, inputs=(), outputs=(), guards=(), symbols={})
    part = dataclasses.replace(lowered, graph=graph, blocks=(alone,), plans=(lowered.plans[0],))

    def renamed(item: Any) -> Any:
        return item._replace(step=place[item.step]) if isinstance(item, Part) else place[item]

    if isinstance(schedule, Stages):
        stages = tuple(tuple(tuple(map(renamed, group)) for group in stage) for stage in schedule.stages)
        return part, Stages(stages, schedule.workers)
    return part, Queues(tuple(tuple(map(renamed, queue)) for queue in schedule.workers))


def _stand_in(old: Buffer, written: bool) -> Buffer:
    """Memory of the same size; values of its own where no step of the stage makes them."""
    if written:
        return Buffer("arena", old.dtype, old.elements, name=old.name)
    size = int(old.elements)
    values = torch.randn(size).to(old.dtype) if old.dtype.is_floating_point else torch.zeros(size, dtype=old.dtype)
    return Buffer("constant", old.dtype, old.elements, values, old.name)
