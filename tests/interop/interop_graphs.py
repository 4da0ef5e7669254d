"""Graphs of the paper, random graphs and random costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from taut.compile.interop import Convolution, Operator, OperatorGraph, Stage, Stages

SQUEEZENET = OperatorGraph.from_edges(6, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 5), (4, 5)])
INCEPTION = OperatorGraph.from_edges(
    11, [(0, 10), (1, 2), (1, 3), (2, 10), (3, 10), (4, 5), (5, 6), (5, 7), (6, 10), (7, 10), (8, 9), (9, 10)]
)
# A normal cell of NASNet-A: activations 0 and 1, 1×1 convolutions 2 and 3 of the two inputs, five separable
# convolutions 4 to 8, three average pools 9 to 11, five sums and their concatenation.
NASNET_CELL = OperatorGraph.from_edges(
    18,
    [
        *((0, 2), (1, 3)),
        *((2, 4), (3, 5), (2, 6), (3, 7), (3, 8), (2, 9), (3, 10), (3, 11)),
        *((4, 12), (2, 12), (5, 13), (6, 13), (9, 14), (3, 14), (10, 15), (11, 15), (7, 16), (8, 16)),
        *((number, 17) for number in range(12, 17)),
    ],
)


def random_graph(generator: np.random.Generator, most: int = 7) -> OperatorGraph:
    """A graph of up to `most` operators in random order; about half are convolutions of one of two inputs."""
    size = int(generator.integers(1, most + 1))
    names = generator.permutation(size)
    share = generator.uniform(0.1, 0.7)
    edges = [(names[a], names[b]) for b in range(size) for a in range(b) if generator.random() < share]
    operators = [Operator(str(number)) for number in range(size)]
    if share < 0.4:
        for number in generator.choice(size, size // 2, replace=False):
            source = str(generator.integers(2))
            convolution = Convolution(source, (8, 4, 4), (4, 4), (1, 1))
            operators[number] = Operator(str(number), "conv", convolution)
    return OperatorGraph.from_edges(size, edges, operators)


def random_costs(generator: np.random.Generator) -> Callable[[Stages], list[float]]:
    """An oracle of random costs, which it remembers; larger stages cost more, but less than their parts."""
    known: dict[tuple[frozenset[int], str], float] = {}

    def cost(stage: Stage) -> float:
        key = (frozenset(stage.operators), stage.strategy)
        if key not in known:
            known[key] = float(len(stage.operators) ** 0.5 * generator.uniform(0.5, 1.5))
        return known[key]

    return lambda stages: [cost(stage) for stage in stages]
