"""Schedules: which worker runs which steps of a block, and when; and programs that keep to them."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from taut.compile._block import Block, CopyStep, KernelStep, Region, Step, inputs_of, outputs_of
from taut.compile._block import Task as EmittedTask
from taut.compile._dependences import dependences, shared_elements
from taut.compile._groups import grouped
from taut.compile._memory import plan_memory
from taut.compile._program import Lowered, assemble
from taut.compile._split import split_step
from taut.errors import GraphError


class Part(NamedTuple):
    """One of the parts into which a step is split.

    Attributes:
        step: its number in the block.
        part: which one.
        parts: how many there are.
        rows: whether they are images or rows of images, rather than what `split_step` likes best.
    """

    step: int
    part: int
    parts: int
    rows: bool = False


class Split(NamedTuple):
    """How a step is split.

    Attributes:
        parts: how many.
        rows: as in `Part`.
    """

    parts: int
    rows: bool = False

    def items(self, step: int) -> list[Part]:
        """All parts of a step."""
        return [Part(step, part, self.parts, self.rows) for part in range(self.parts)]


Item: TypeAlias = int | Part
"""The number of a step, or a part of one."""


@dataclasses.dataclass(frozen=True)
class Stages:
    """Stages with a barrier between them.

    Attributes:
        stages: for each stage its groups, which run at the same time; for each group its steps in order. Group i runs
            on worker i modulo `workers`.
        workers: how many there are.
    """

    stages: tuple[tuple[tuple[Item, ...], ...], ...]
    workers: int = 2


@dataclasses.dataclass(frozen=True)
class Queues:
    """No barriers: each worker has its steps, and a step starts when those that it depends on are done.

    Attributes:
        workers: for each worker its steps in order.
    """

    workers: tuple[tuple[Item, ...], ...]


Schedule: TypeAlias = Stages | Queues


def apply_schedule(lowered: Lowered, schedule: Schedule, function: int = 0) -> Lowered:
    """A program that runs the steps of one function as a schedule says, with the same results bit for bit.

    Kernels and copies are scheduled; other steps stay where they are, and the schedule may not carry a step past one.

    Args:
        lowered: a sequential program.
        schedule: has each kernel and copy of the function once, whole or in all its parts.
        function: its number.

    Raises:
        GraphError: if a step is missing, comes twice, or comes before what it depends on.
        ArgumentError: if a step cannot be split so.
    """
    source = lowered.blocks[function]
    _check_items(source, schedule)
    parts = {item.step: Split(item.parts, item.rows) for item in _items(schedule) if isinstance(item, Part)}
    split, number_of = _split(source, parts)
    needed = dependences(split)
    block, regions, before = _arranged(split, _tasks(schedule, number_of, needed), needed)
    blocks, plans = list(lowered.blocks), list(lowered.plans)
    blocks[function] = block
    plans[function] = plan_memory(block, lowered.hint, before)
    made = assemble(lowered.graph, blocks, plans, lowered.hint, lowered.avoided, {function: regions})
    return dataclasses.replace(made, devices=lowered.devices, tiles=lowered.tiles)


def schedulable(block: Block) -> list[int]:
    """The steps that a schedule must have."""
    return [number for number, step in enumerate(block.steps) if isinstance(step, KernelStep | CopyStep)]


def threads_of(schedule: Schedule) -> int:
    """How many threads a call of its program keeps busy: those up to the last that has steps."""
    if isinstance(schedule, Stages):
        return max((min(len(stage), schedule.workers) for stage in schedule.stages), default=1)
    return max((number for number, queue in enumerate(schedule.workers, 1) if queue), default=1)


def longest_path_first(
    block: Block,
    durations: Sequence[float],
    workers: int = 2,
    *,
    hand_off: float = 0.0,
    transfer: float = 0.0,
    parts: Mapping[int, Split] = MappingProxyType({}),
) -> Queues:
    """Greedy by the longest path to the end: the ready step on which most waits goes to who can start it first.

    Args:
        block: the code.
        durations: of each step, in any unit.
        workers: how many.
        hand_off: what it costs to wait for another worker, in the same unit.
        transfer: what it costs to read a byte that another worker wrote, in the same unit.
        parts: steps to split, into parts that take equal shares of the duration.
    """
    block, number_of = _split(block, parts)
    items = {number: item for item, number in number_of.items()}
    durations = [
        durations[item.step] / item.parts if isinstance(item, Part) else durations[item]
        for item in (items[number] for number in range(len(block.steps)))
    ]
    before = dependences(block)
    after: list[list[int]] = [[] for _ in before]
    for step, earlier in enumerate(before):
        for other in earlier:
            after[other].append(step)
    path = durations.copy()
    for step in reversed(range(len(path))):
        path[step] += max((path[other] for other in after[step]), default=0.0)
    waiting = [len(earlier) for earlier in before]
    ready = [(-path[step], step) for step, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    free = [0.0] * workers
    done: dict[int, tuple[float, int]] = {}
    queues: list[list[Item]] = [[] for _ in range(workers)]
    placed = set(schedulable(block))
    while ready:
        _, step = heapq.heappop(ready)

        def finish(worker: int, step: int = step) -> float:
            others = [other for other in before[step] if done[other][1] != worker]
            start = max([free[worker], *(done[other][0] + hand_off * (other in others) for other in before[step])])
            moved = sum(_bytes_between(block.steps[other], block.steps[step]) for other in others)
            return start + moved * transfer + durations[step]

        worker = min(range(workers), key=lambda number: (finish(number), number))
        free[worker] = finish(worker)
        done[step] = free[worker], worker
        if step in placed:
            queues[worker].append(items[step])
        for other in after[step]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, (-path[other], other))
    return Queues(tuple(map(tuple, queues)))


def lockstep(block: Block, durations: Sequence[float], workers: int, parts: Mapping[int, Split]) -> Queues:
    """Steps in the order of the block, each on all workers at once where `parts` has it, without barriers.

    Part i runs on worker i, so that parts that were cut alike find their inputs where they run. Whole steps go to who
    has least to do.

    Args:
        block: the code.
        durations: of each step, in any unit.
        workers: how many.
        parts: steps to split, each into so many parts as there are workers.
    """
    queues: list[list[Item]] = [[] for _ in range(workers)]
    load = [0.0] * workers
    for step in schedulable(block):
        if step in parts:
            for worker, item in enumerate(parts[step].items(step)):
                queues[worker].append(item)
                load[worker] += durations[step] / workers
        else:
            worker = min(range(workers), key=lambda number: load[number])
            queues[worker].append(step)
            load[worker] += durations[step]
    return Queues(tuple(map(tuple, queues)))


def _bytes_between(writer: Step, reader: Step) -> int:
    """What a step reads of the results of another; 0 where sizes are not static."""
    if not isinstance(writer, KernelStep | CopyStep) or not isinstance(reader, KernelStep | CopyStep):
        return 0
    written = {view.buffer: view for view in outputs_of(writer)}
    return sum(
        shared_elements(written[view.buffer], view) * view.dtype.itemsize
        for view in inputs_of(reader)
        if view.buffer in written
    )


def _items(schedule: Schedule) -> Iterator[Item]:
    if isinstance(schedule, Stages):
        for stage in schedule.stages:
            for group in stage:
                yield from group
    else:
        for queue in schedule.workers:
            yield from queue


def _check_items(block: Block, schedule: Schedule) -> None:
    """Refuse a schedule that has not each step once, whole or in all its parts."""
    given: dict[int, list[Item]] = {}
    for item in _items(schedule):
        given.setdefault(item.step if isinstance(item, Part) else item, []).append(item)
    wanted = set(schedulable(block))
    for step in sorted(given.keys() ^ wanted):
        problem = "lacks" if step in wanted else "has"
        raise GraphError(f"the schedule {problem} step {step}", expected="each kernel and copy once")
    for step, found in given.items():
        first = found[0]
        expected = Split(first.parts, first.rows).items(step) if isinstance(first, Part) else [step]
        if sorted(found, key=str) != sorted(expected, key=str):
            raise GraphError(f"the schedule has step {step} as {found}", expected=str(expected))


def _split(block: Block, parts: Mapping[int, Split]) -> tuple[Block, dict[Item, int]]:
    """The block with steps in their parts, and the new number of each item."""
    steps: list[Step] = []
    number_of: dict[Item, int] = {}
    for number, step in enumerate(block.steps):
        items: Sequence[Item] = parts[number].items(number) if number in parts else (number,)
        number_of |= {item: len(steps) + position for position, item in enumerate(items)}
        steps += split_step(step, len(items), rows=number in parts and parts[number].rows)
    return dataclasses.replace(block, steps=tuple(steps)), number_of


@dataclasses.dataclass(frozen=True)
class _Task:
    worker: int
    steps: tuple[int, ...]
    stage: int


def _tasks(schedule: Schedule, number_of: Mapping[Item, int], needed: Sequence[set[int]]) -> list[_Task]:
    """What workers take as a whole, in the order of each worker."""
    if isinstance(schedule, Stages):
        return [
            _Task(group % schedule.workers, tuple(number_of[item] for item in items), number)
            for number, stage in enumerate(schedule.stages)
            for group, items in enumerate(stage)
            if items
        ]
    queues = grouped([[number_of[item] for item in queue] for queue in schedule.workers], needed)
    return [_Task(worker, steps, -1) for worker, groups in enumerate(queues) for steps in groups]


def _arranged(
    block: Block, tasks: Sequence[_Task], needed: Sequence[set[int]]
) -> tuple[Block, list[Region], list[int]]:
    """The block with its steps in an order that the schedule allows, its regions, and for each step what is done."""
    order, earlier = _ordered(block, tasks, needed)
    starts = [0, *itertools.accumulate(len(task.steps) for task in order)]
    done: list[int] = []  # for each task those that are done when it starts, as bits
    before: list[int] = []  # the same of steps
    regions: list[Region] = []
    region: list[EmittedTask] = []
    for number, task in enumerate(order):
        done.append(0)
        for other in earlier[number]:
            done[-1] |= done[other] | 1 << other
        steps = 0
        for other in range(number):
            if done[-1] >> other & 1:
                steps |= (1 << starts[other + 1]) - (1 << starts[other])
        for position in range(starts[number], starts[number + 1]):
            before.append(steps | (1 << position) - (1 << starts[number]))
        if task.worker >= 0:
            first = number - len(region)
            direct = {
                other for other in earlier[number] if not any(done[more] >> other & 1 for more in earlier[number])
            }
            after = tuple(sorted(other - first for other in direct if other >= first))
            region.append(EmittedTask(len(task.steps), task.worker, after))
        if region and (number + 1 == len(order) or order[number + 1].worker < 0):
            regions.append(Region(starts[number + 1 - len(region)], tuple(region)))
            region = []
    steps = [block.steps[step] for task in order for step in task.steps]
    return dataclasses.replace(block, steps=tuple(steps)), regions, before


def _by_region(task: _Task, fixed: Sequence[int]) -> list[_Task]:
    """The task in pieces that do not pass a step that stays in its place."""
    pieces = itertools.groupby(task.steps, lambda step: sum(other < step for other in fixed))
    return [dataclasses.replace(task, steps=tuple(steps)) for _, steps in pieces]


def _ordered(block: Block, tasks: Sequence[_Task], needed: Sequence[set[int]]) -> tuple[list[_Task], list[list[int]]]:
    """The tasks, and the steps that stay in their places, in an order that the schedule allows.

    Returns:
        The tasks, and for each the earlier ones that must be done before it.

    Raises:
        GraphError: if the schedule contradicts the dependences.
    """
    fixed = sorted(set(range(len(block.steps))) - set(schedulable(block)))
    every = [piece for task in tasks for piece in _by_region(task, fixed)]
    every += [_Task(-1, (step,), -1) for step in fixed]
    task_of = {step: number for number, task in enumerate(every) for step in task.steps}
    before: list[set[int]] = []
    latest: dict[int, int] = {}
    for number, task in enumerate(every):
        _check_inside(task, needed)
        before.append({task_of[other] for step in task.steps for other in needed[step]} - {number})
        if task.worker >= 0:
            if task.worker in latest:
                before[-1].add(latest[task.worker])
            latest[task.worker] = number
        if task.stage > 0:
            before[-1] |= {other for other in range(number) if every[other].stage < task.stage}
    waiting = [len(earlier) for earlier in before]
    after: list[list[int]] = [[] for _ in every]
    for number, earlier in enumerate(before):
        for other in earlier:
            after[other].append(number)
    ready = [(min(task.steps), number) for number, task in enumerate(every) if waiting[number] == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, number = heapq.heappop(ready)
        order.append(number)
        for other in after[number]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, (min(every[other].steps), other))
    if len(order) < len(every):
        step = min(step for number, task in enumerate(every) if waiting[number] for step in task.steps)
        raise GraphError(
            f"the schedule has step {step} ({block.steps[step].label}) behind something that depends on it",
            expected="an order that keeps dependences",
        )
    place = {number: position for position, number in enumerate(order)}
    return [every[number] for number in order], [[place[other] for other in before[number]] for number in order]


def _check_inside(task: _Task, needed: Sequence[set[int]]) -> None:
    place = {step: position for position, step in enumerate(task.steps)}
    for step in task.steps:
        for other in needed[step]:
            if place.get(other, -1) > place[step]:
                raise GraphError(f"the schedule has step {step} before step {other}", expected="that order turned")
