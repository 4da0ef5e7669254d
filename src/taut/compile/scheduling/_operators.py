"""The steps of a block as operators that a search can place."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from taut.compile._block import Block, CopyStep, KernelStep
from taut.compile._dependences import dependences
from taut.compile._parallel import schedulable
from taut.compile.interop import Operator, OperatorGraph
from taut.compile.scheduling._merge import Mergeable, mergeable
from taut.graph import Graph

WORTH_SPLITTING = 2e-6
"""Seconds of a step below which its parts would not gain what handing over their inputs costs."""
_LIGHT, _LIGHT_SHARE = 4e-6, 0.01
"""A step is light if it takes less than so many seconds, and less than that share of a call."""


@dataclasses.dataclass(frozen=True)
class Operators:
    """What a search places: each operator is one step, or a few that run one after the other.

    Attributes:
        graph: the operators, named by the modules that they come from.
        steps: of each operator, ascending.
        segments: operators between two steps that stay in their places; one after the other.
    """

    graph: OperatorGraph
    steps: tuple[tuple[int, ...], ...]
    segments: tuple[tuple[int, ...], ...]


def operators_of(
    block: Block, durations: Sequence[float], light: float | None = None, graph: Graph | None = None
) -> Operators:
    """The operators of a block.

    A light step that a single other one needs belongs to the same operator as that one: it would gain little by itself,
    and makes the search longer. In a short call, e.g. of a small batch, few steps are light.

    Args:
        block: the code.
        durations: seconds of each of its steps.
        light: seconds below which a step is light; by default 4 us, or 1 % of all steps if that is less.
        graph: what the block was lowered from; without it no operators can be merged.
    """
    if light is None:
        light = min(_LIGHT, _LIGHT_SHARE * sum(durations))
    before = dependences(block)
    placed = schedulable(block)
    after: dict[int, set[int]] = {step: set() for step in placed}
    for step in placed:
        for other in before[step]:
            if other in after:
                after[other].add(step)
    fixed = [step for step in range(len(block.steps)) if step not in after]
    owner = {step: step for step in placed}
    for step in reversed(placed):
        if durations[step] < light and len(after[step]) == 1:
            (only,) = after[step]
            if _segment(step, fixed) == _segment(only, fixed):
                owner[step] = owner[only]
    leaders = sorted(set(owner.values()))
    number = {leader: position for position, leader in enumerate(leaders)}
    steps: list[list[int]] = [[] for _ in leaders]
    for step in placed:
        steps[number[owner[step]]].append(step)
    segments = tuple(
        tuple(number[leader] for leader in own)
        for _, own in itertools.groupby(leaders, lambda leader: _segment(leader, fixed))
    )
    edges = {
        (number[owner[other]], number[owner[step]])
        for step in placed
        for other in before[step]
        if other in after and owner[other] != owner[step]
    }
    for first, second in itertools.pairwise(segments):
        edges |= set(itertools.product(first, second))
    found = {} if graph is None else convolutions_of(block, steps, graph)
    operators = [
        Operator(
            name_of(block, leader), _kind(block, leader), found[position].convolution if position in found else None
        )
        for position, leader in enumerate(leaders)
    ]
    made = OperatorGraph.from_edges(len(leaders), sorted(edges), operators)
    return Operators(made, tuple(map(tuple, steps)), segments)


def convolutions_of(block: Block, steps: Sequence[Sequence[int]], graph: Graph) -> dict[int, Mergeable]:
    """Of operators with these steps those that are a convolution which might be merged with others, by number."""
    owner = {}
    for number, own in enumerate(steps):
        step = block.steps[own[0]]
        if len(own) == 1 and isinstance(step, KernelStep):
            owner[step.nodes] = number
    found = {}
    for one in mergeable(graph):
        nodes = (one.node,) if one.activation is None else (one.node, one.activation)
        if nodes in owner:
            found[owner[nodes]] = one
    return found


def name_of(block: Block, step: int) -> str:
    """The module that a step comes from, or its number."""
    return block.steps[step].label or f"step {step}"


def _kind(block: Block, number: int) -> str:
    step = block.steps[number]
    if isinstance(step, CopyStep):
        return "copy"
    assert isinstance(step, KernelStep)
    return step.kernel if isinstance(step.kernel, str) else step.kernel.template


def _segment(step: int, fixed: Sequence[int]) -> int:
    return sum(other < step for other in fixed)
