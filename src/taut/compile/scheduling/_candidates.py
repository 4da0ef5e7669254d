"""Schedules without barriers, and what each schedule is predicted to take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from taut.codegen import Recipe
from taut.compile._block import Block, KernelStep
from taut.compile._dependences import dependences
from taut.compile._dims import product
from taut.compile._parallel import (
    Item,
    Part,
    Queues,
    Schedule,
    Split,
    Stages,
    lockstep,
    longest_path_first,
    schedulable,
)
from taut.compile._split import can_split
from taut.compile.interop import Timeline, exact_schedule, list_schedule, lower_bound
from taut.compile.scheduling._operators import WORTH_SPLITTING, Operators, operators_of

_MOST_EXACT = 40
_NODES = 200_000
_HAND_OFF = 2e-7
"""Seconds from the end of a step on one worker to the start of another's."""
_TRANSFER = 1 / 1e10
"""Seconds to read a byte from the cache of another core."""


def candidates(block: Block, durations: Sequence[float], workers: int, *, exact: bool = False) -> dict[str, Queues]:
    """Schedules by simple rules, by name: "list" and "split" by the longest path to the end, "intra" in lockstep.

    Args:
        block: the code.
        durations: seconds of each step.
        workers: threads.
        exact: whether results must stay the same bit for bit.
    """
    parts: dict[int, Split] = {}
    for step in schedulable(block):
        split = None if exact else _by_rows(block, step, workers)
        if split is None and durations[step] >= WORTH_SPLITTING and can_split(block.steps[step], workers):
            split = Split(workers)
        if split is not None:
            parts[step] = split
    listed = functools.partial(longest_path_first, block, durations, workers, hand_off=_HAND_OFF, transfer=_TRANSFER)
    return {
        "list": listed(),
        "split": listed(parts=parts),
        "intra": lockstep(block, durations, workers, parts),
    }


def _by_rows(block: Block, number: int, workers: int) -> Split | None:
    """Rows for each worker, unless each would then read more weights than there are inputs to share."""
    step = block.steps[number]
    if not isinstance(step, KernelStep) or not isinstance(step.kernel, Recipe):
        return None
    weights = inputs = 0
    for view in step.inputs:
        size = product(view.sizes)
        if not isinstance(size, int):
            return None
        if view.buffer.kind == "constant":
            weights += size
        else:
            inputs += size
    return Split(workers, rows=True) if weights <= inputs and can_split(step, workers, rows=True) else None


def step_table(
    block: Block, durations: Sequence[float], split: Mapping[int, float], workers: int
) -> NDArray[np.float64]:
    """Seconds of each step on 1 to `workers` workers, infinite where it was not measured so: (steps, workers)."""
    table = np.full((len(block.steps), workers), np.inf)
    table[:, 0] = durations
    for step, seconds in split.items():
        table[step, workers - 1] = seconds
    return table


def barrier_free(
    block: Block,
    operators: Operators,
    durations: Sequence[float],
    split: Mapping[int, float],
    workers: int,
    *,
    exact: bool = False,
) -> dict[str, Schedule]:
    """Schedules in which a step starts when those that it depends on are done, by name.

    Args:
        block: the code.
        operators: of the block.
        durations: seconds of each step on one worker.
        split: seconds of steps that can run on all workers.
        workers: how many there are.
        exact: whether results must stay the same bit for bit.
    """
    table = operator_table(block, operators, durations, split, workers)
    if len(operators.graph) <= _MOST_EXACT:
        made = exact_schedule(operators.graph, table, node_limit=_NODES)
    else:
        made = list_schedule(operators.graph, table)
    shortest = "shortest" if made.optimal else "moldable"
    simple = candidates(block, durations, workers, exact=exact)
    return {**simple, shortest: _queues(operators, made, split, workers)}


def operator_table(
    block: Block, operators: Operators, durations: Sequence[float], split: Mapping[int, float], workers: int
) -> NDArray[np.float64]:
    """Seconds of each operator on 1 to `workers` workers: (operators, workers)."""
    steps = step_table(block, durations, split, workers)
    best = np.where(np.isfinite(steps[:, -1]), steps[:, -1], steps[:, 0])
    table = np.full((len(operators.graph), workers), np.inf)
    for number, own in enumerate(operators.steps):
        table[number, 0] = steps[list(own), 0].sum()
        if any(step in split for step in own):
            table[number, -1] = best[list(own)].sum()
    return table


def bound(block: Block, durations: Sequence[float], split: Collection[int], workers: int) -> tuple[float, float]:
    """Seconds of the critical path, and of the work shared evenly, if the steps in `split` could be split for free."""
    steps = operators_of(block, durations, light=0.0)
    even = {step: durations[step] / workers for step in split}
    found = lower_bound(steps.graph, operator_table(block, steps, durations, even, workers))
    return found.critical_path, found.work_by_workers


def _queues(operators: Operators, made: Timeline, large: Collection[int], workers: int) -> Queues:
    queues: list[list[Item]] = [[] for _ in range(workers)]
    for slot in made.slots:
        for step in operators.steps[slot.operator]:
            if len(slot.workers) == workers > 1 and step in large:
                for part, worker in enumerate(slot.workers):
                    queues[worker].append(Part(step, part, workers))
            else:
                queues[slot.workers[0]].append(step)
    return Queues(tuple(map(tuple, queues)))


def predicted(block: Block, schedule: Schedule | None, durations: Sequence[float], split: Mapping[int, float]) -> float:
    """Seconds that a schedule would take if its steps took as long as alone, and handing over took no time.

    What cannot be placed, e.g. an operator on ATen, runs on its own.
    """
    if schedule is None:
        return sum(durations)

    def seconds(item: Item) -> float:
        return split.get(item.step, durations[item.step] / item.parts) if isinstance(item, Part) else durations[item]

    if isinstance(schedule, Stages):
        total = sum(durations) - sum(durations[step] for step in schedulable(block))
        for stage in schedule.stages:
            loads = [0.0] * schedule.workers
            for position, group in enumerate(stage):
                loads[position % schedule.workers] += sum(map(seconds, group))
            total += max(loads)
        return total
    return _simulated(block, schedule, seconds, durations)


def _simulated(block: Block, schedule: Queues, seconds: Callable[[Item], float], durations: Sequence[float]) -> float:
    before = dependences(block)
    ends: dict[Item, float] = {}
    items: dict[int, set[Item]] = {}
    for queue in schedule.workers:
        for item in queue:
            items.setdefault(item.step if isinstance(item, Part) else item, set()).add(item)
    for step in range(len(block.steps)):
        items.setdefault(step, set())
    position = [0] * len(schedule.workers)
    free = [0.0] * len(schedule.workers)
    done: dict[int, float] = {}
    while True:
        moved = False
        for step, own in items.items():
            if step not in done and all(other in done for other in before[step]) and own <= ends.keys():
                earlier = max((done[other] for other in before[step]), default=0.0)
                done[step] = max(ends[item] for item in own) if own else earlier + durations[step]
                moved = True
        for worker, queue in enumerate(schedule.workers):
            while position[worker] < len(queue):
                item = queue[position[worker]]
                step = item.step if isinstance(item, Part) else item
                if any(other not in done for other in before[step]):
                    break
                start = max([free[worker], *(done[other] for other in before[step])])
                free[worker] = ends[item] = start + seconds(item)
                position[worker] += 1
                moved = True
        if not moved:
            return max([0.0, *done.values()])
