"""What merging convolutions would cost, by measurement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from taut.compile._block import KernelStep
from taut.compile._model import generate_all
from taut.compile._program import Lowered, lower
from taut.compile.scheduling._costs import StageCosts
from taut.compile.scheduling._merge import Mergeable, merge_convolutions, mergeable
from taut.compile.scheduling._operators import LIGHT, Operators
from taut.graph import Graph

_MOST_SUBSETS_OF = 3
_MOST_EXTRA_WORK = 2.0
"""How many times the multiply-adds of its parts a merged convolution may have: a padded kernel multiplies zeros."""


def merge_prices(
    graph: Graph, lowered: Lowered, operators: Operators, workers: int, late: Callable[[], bool]
) -> dict[frozenset[int], tuple[float, tuple[int, ...]]]:
    """Seconds of convolutions merged into one, with their nodes, by their operators.

    Args:
        graph: of the program.
        lowered: the program.
        operators: of the program.
        workers: threads.
        late: whether to stop pricing.
    """
    steps = lowered.blocks[0].steps
    owner = {}
    for number, own in enumerate(operators.steps):
        step = steps[own[0]]
        if len(own) == 1 and isinstance(step, KernelStep):
            owner[step.nodes] = number
    classes: dict[object, list[tuple[int, Mergeable]]] = {}
    for one in mergeable(graph):
        nodes = (one.node,) if one.activation is None else (one.node, one.activation)
        key = one.convolution.merge_key()
        if key is not None and nodes in owner:
            classes.setdefault(key, []).append((owner[nodes], one))
    prices = {}
    for group in classes.values():
        for chosen in _subsets(group):
            if late():
                return prices
            members = [one for _, one in chosen]
            if _work_of_merged(members) > _MOST_EXTRA_WORK * sum(one.multiply_adds for one in members):
                continue
            nodes = tuple(one.node for one in members)
            seconds = _price(graph, nodes, workers)
            if seconds is not None:
                prices[frozenset(number for number, _ in chosen)] = seconds, nodes
    return prices


def _subsets(group: Sequence[tuple[int, Mergeable]]) -> Iterator[tuple[tuple[int, Mergeable], ...]]:
    """All of the group, and where it is small all of its subsets of two and more."""
    if len(group) > _MOST_SUBSETS_OF:
        yield tuple(group)
        return
    for size in range(len(group), 1, -1):
        yield from itertools.combinations(group, size)


def _work_of_merged(members: Sequence[Mergeable]) -> int:
    kernel = [max(one.convolution.kernel[axis] for one in members) for axis in (0, 1)]
    height, width = members[0].convolution.output_size
    outputs = sum(len(one.weight) for one in members)
    return outputs * members[0].weight.shape[1] * kernel[0] * kernel[1] * height * width


def _price(graph: Graph, nodes: tuple[int, ...], workers: int) -> float | None:
    """Seconds of the merged convolution alone, on one worker or all; None where no kernel does it."""
    merged = merge_convolutions(graph, [nodes])
    lowered, _, failed = generate_all(merged, lower(merged))
    if failed:
        return None
    path = "+".join(graph.nodes[node].module_path or str(node) for node in nodes)
    wide = {node.id for node in merged.nodes if node.op == "aten.convolution.default" and node.module_path == path}
    costs = StageCosts(lowered, workers)
    for number in costs.steps:
        step = lowered.blocks[0].steps[number]
        if isinstance(step, KernelStep) and wide & set(step.nodes):
            seconds = costs.sequential([number])
            return min(seconds, costs.split([number])) if seconds >= LIGHT and costs.can_split(number) else seconds
    return None
