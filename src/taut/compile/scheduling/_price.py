"""What merging convolutions would cost, by measurement."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from taut.codegen import Recipe
from taut.compile._block import KernelStep
from taut.compile._program import Lowered, lower
from taut.compile._split import can_split, split_step
from taut.compile.scheduling._costs import StageCosts, recipes_of
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._merge import CONVOLUTION, Mergeable, merge_convolutions, merged_path
from taut.compile.scheduling._operators import WORTH_SPLITTING, Operators, convolutions_of
from taut.cost import CostModel
from taut.errors import GraphError
from taut.graph import Graph

_MOST_SUBSETS_OF = 3
_MOST_PRICED = 16
_MOST_EXTRA_WORK = 2.0
"""How many times the multiply-adds of its parts a merged convolution may have: a padded kernel multiplies zeros."""


def merge_prices(
    graph: Graph, lowered: Lowered, operators: Operators, workers: int, kernels: Kernels, late: Callable[[], bool]
) -> dict[frozenset[int], tuple[float, tuple[int, ...]]]:
    """Seconds of convolutions merged into one, with their nodes, by their operators.

    Args:
        graph: of the program.
        lowered: the program.
        operators: of the program.
        workers: threads.
        kernels: to generate those of merged convolutions in.
        late: whether to stop pricing.
    """
    classes: dict[object, list[tuple[int, Mergeable]]] = {}
    for number, one in convolutions_of(lowered.blocks[0], operators.steps, graph).items():
        key = one.convolution.merge_key()
        if key is not None:
            classes.setdefault(key, []).append((number, one))
    chosen = groups_to_price(classes.values())
    made: list[_Wide] = []
    for some in chosen:
        if late():
            break
        made.append(_wide(graph, tuple(one.node for _, one in some), workers, lowered.tiles))
    kernels.add({key: recipe for wide in made for key, recipe in wide.recipes.items()})
    prices = {}
    for some, wide in zip(chosen, made, strict=False):
        if late():
            break
        seconds = wide.seconds(workers, kernels)
        if seconds is not None:
            prices[frozenset(number for number, _ in some)] = seconds, tuple(one.node for _, one in some)
    return prices


def groups_to_price(
    classes: Iterable[Sequence[tuple[int, Mergeable]]],
) -> list[tuple[tuple[int, Mergeable], ...]]:
    """Groups of convolutions, with the numbers of their operators, of which merging might pay.

    Args:
        classes: convolutions of which any may be merged with any.
    """
    return [some for group in classes for some in _subsets(group) if _worth_pricing(some)][:_MOST_PRICED]


def _subsets(group: Sequence[tuple[int, Mergeable]]) -> Iterator[tuple[tuple[int, Mergeable], ...]]:
    """All of the group, and where it is small all of its subsets of two and more."""
    if len(group) > _MOST_SUBSETS_OF:
        yield tuple(group)
        return
    for size in range(len(group), 1, -1):
        yield from itertools.combinations(group, size)


def _worth_pricing(group: Sequence[tuple[int, Mergeable]]) -> bool:
    members = [one for _, one in group]
    kernel = [max(one.convolution.kernel[axis] for one in members) for axis in (0, 1)]
    height, width = members[0].convolution.output_size
    outputs = sum(len(one.weight) for one in members)
    work = outputs * members[0].weight.shape[1] * kernel[0] * kernel[1] * height * width
    return work <= _MOST_EXTRA_WORK * sum(one.multiply_adds for one in members)


@dataclasses.dataclass(frozen=True)
class _Wide:
    """A merged convolution in a program of its own graph: the number of its step, and kernels of it and its parts."""

    lowered: Lowered
    step: int
    recipes: Mapping[str, Recipe]

    def seconds(self, workers: int, kernels: Kernels) -> float | None:
        """The least of what it takes on one worker and on all; None where no kernel does it."""
        if not kernels.has(recipes_of([self.lowered.blocks[0].steps[self.step]])):
            return None
        costs = StageCosts(self.lowered, workers, kernels)
        alone = costs.sequential([self.step])
        together = costs.split([self.step]) if alone >= WORTH_SPLITTING and costs.can_split(self.step) else None
        return alone if together is None else min(alone, together)


def _wide(graph: Graph, nodes: tuple[int, ...], workers: int, tiles: CostModel | None) -> _Wide:
    merged = merge_convolutions(graph, [nodes])
    lowered = lower(merged, tiles=tiles)
    path = merged_path(graph, nodes)
    wide = {node.id for node in merged.nodes if node.op == CONVOLUTION and node.module_path == path}
    for number, step in enumerate(lowered.blocks[0].steps):
        if isinstance(step, KernelStep) and wide & set(step.nodes):
            pieces = [step, *(split_step(step, workers) if can_split(step, workers) else ())]
            return _Wide(lowered, number, recipes_of(pieces))
    raise GraphError(f"the merged convolution {path} is no step", expected="a kernel that computes it")
