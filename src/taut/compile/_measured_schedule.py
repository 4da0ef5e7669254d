"""What steps and stages cost in the machine."""

from __future__ import annotations

import dataclasses
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
    Stages,
    apply_schedule,
)
from taut.compile._program import Lowered
from taut.compile._split import can_split, split_step
from taut.compile._views import Buffer, View
from taut.runtime import Session, load


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


def step_seconds(lowered: Lowered, session: Session, inputs: Sequence[Any], repeats: int = 30) -> list[float]:
    """What each step of function 0 takes, the least of several calls; 0 for steps that are no instruction."""
    step_at = {pc: step for step, pc in enumerate(lowered.instructions[0])}
    times: list[list[float]] = [[] for _ in step_at]
    for _ in range(repeats):
        for entry in session.profile(*inputs):
            if entry.function == 0 and entry.instruction in step_at:
                times[step_at[entry.instruction]].append(entry.nanoseconds * 1e-9)
    return [min(own, default=0.0) for own in times]


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
