"""Networks with random weights built from published schedules, and these schedules over the steps of their programs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from taut.compile import CompiledModel
from taut.compile._dependences import dependences
from taut.compile._parallel import Stages, schedulable
from taut.compile.interop import Operator, ScheduledBlock

Parts = tuple[tuple[tuple[str, int, int], ...], ...]


class PublishedOperator(nn.Module):
    """One operator: it joins its inputs, each a sum of channels of values, and computes.

    Args:
        operator: as it was read.
        shrink: what channels are divided by.
    """

    def __init__(self, operator: Operator, shrink: int) -> None:
        super().__init__()
        given = operator.attributes
        self.parts: Parts = tuple(
            tuple((part.source, part.begin // shrink, -(-part.end // shrink)) for part in term)
            for term in given["inputs"]
        )
        channels = sum(term[0][2] - term[0][1] for term in self.parts)
        self.kind, self.active = operator.kind, given.get("act") == "relu"
        if self.kind == "conv":
            wide = given["out_channels"] // shrink
            window = given["kernel"], given["stride"], given["padding"]
            self.layer: nn.Module = nn.Conv2d(channels, wide, *window)
        elif self.kind == "pool":
            window = given["kernel"], given["stride"], given["padding"]
            kinds = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
            kind = given["pool_type"]
            self.layer = nn.AdaptiveAvgPool2d(1) if kind == "global_avg" else kinds[kind](*window)
        else:
            self.layer = nn.Identity()

    def forward(self, values: list[Tensor], names: list[str]) -> Tensor:
        known = dict(zip(names, values, strict=True))
        terms = []
        for term in self.parts:
            slices = [known[name][:, begin:end] for name, begin, end in term]
            terms.append(sum(slices[1:], slices[0]))
        made = self.layer(terms[0] if len(terms) == 1 else torch.cat(terms, 1))
        return torch.relu(made) if self.active else made


class PublishedBlocks(nn.Module):
    """Blocks one after the other; each enters with a value of an earlier one or with the input."""

    def __init__(self, blocks: Sequence[ScheduledBlock], shrink: int = 1) -> None:
        super().__init__()
        self.entry = blocks[0].entry
        self.names = [[operator.name for operator in block.graph.operators] for block in blocks]
        self.orders = [block.graph.order for block in blocks]
        self.blocks = nn.ModuleList(
            nn.ModuleList(PublishedOperator(operator, shrink) for operator in block.graph.operators) for block in blocks
        )

    def forward(self, x: Tensor) -> Tensor:
        values = {self.entry: x}
        for block, names, order in zip(self.blocks, self.names, self.orders, strict=True):
            for number in order:
                operator = block[number]  # pyright: ignore[reportIndexIssue]
                values[names[number]] = operator(list(values.values()), list(values))
        return values[self.names[-1][-1]]


def published_stages(model: CompiledModel, blocks: Sequence[ScheduledBlock]) -> Stages:
    """The schedules of blocks over the steps of their program: each operator brings the steps that come from it.

    A step of no operator, e.g. the change of layout at the entry, is a stage of its own where it is needed first.
    """
    block = model.lowered.blocks[0]
    place: dict[tuple[int, int], tuple[int, int, int]] = {}
    count = 0
    for number, scheduled in enumerate(blocks):
        for stage in scheduled.schedule.stages:
            for group, operators in enumerate(stage.groups):
                for position, operator in enumerate(operators):
                    place[number, operator] = count, group, position
            count += 1
    where: dict[int, tuple[int, int, int]] = {}
    for step in schedulable(block):
        words = block.steps[step].label.split(".")
        if words[:1] == ["blocks"]:
            where[step] = place[int(words[1]), int(words[2])]
    before = dependences(block)
    loose = [step for step in schedulable(block) if step not in where]
    stages: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
    for stage in range(count):
        groups: dict[int, list[tuple[int, int]]] = {}
        for step, (own, group, position) in where.items():
            if own == stage:
                groups.setdefault(group, []).append((position, step))
        stages[stage] = [tuple(step for _, step in sorted(groups[group])) for group in sorted(groups)]
    made: list[tuple[tuple[int, ...], ...]] = []
    done: set[int] = set()
    for stage in stages:
        needed = _needed({step for group in stage for step in group}, before) - done
        made += [((step,),) for step in loose if step in needed]
        done |= needed
        if stage:
            made.append(tuple(stage))
    made += [((step,),) for step in loose if step not in done]
    return Stages(tuple(made), workers=max(map(len, made)))


def _needed(steps: set[int], before: list[set[int]]) -> set[int]:
    found: set[int] = set()
    pending = list(steps)
    while pending:
        step = pending.pop()
        if step not in found:
            found.add(step)
            pending += before[step]
    return found


def input_shape(blocks: Sequence[ScheduledBlock], shape: Sequence[int], shrink: int, side: int) -> tuple[int, ...]:
    """The shape of an image batch of the given side for blocks that enter with values (channels, height, width)."""
    channels = shape[0] if shape[0] == 3 else math.ceil(shape[0] / shrink)
    return 1, channels, side, side
