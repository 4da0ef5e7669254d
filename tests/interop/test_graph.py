"""Operator graphs, what may be merged in them, and their partition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from interop_graphs import INCEPTION, SQUEEZENET, random_graph

from taut.compile.interop import Convolution, Operator, OperatorGraph, partition
from taut.errors import ArgumentError, GraphError


@pytest.mark.parametrize(
    ("size", "edges", "message"),
    [
        (2, [(0, 1), (1, 0)], "operators 0, 1 are on a cycle"),
        (1, [(0, 0)], "operators 0 are on a cycle"),
        (2, [(0, 2)], "edge 0 -> 2 leaves the graph"),
        (2, [(-1, 0)], "edge -1 -> 0 leaves the graph"),
        (5000, [], "size 5000"),
        (-1, [], "size -1"),
    ],
)
def test_malformed_graphs(size: int, edges: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        OperatorGraph.from_edges(size, edges)


def test_edges_are_kept_once() -> None:
    assert OperatorGraph.from_edges(2, [(0, 1), (0, 1)]).edges == ((0, 1),)


def test_order_and_reach() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        graph = random_graph(generator, 12)
        place = {number: i for i, number in enumerate(graph.order)}
        assert sorted(place) == list(range(len(graph)))
        for a, b in graph.edges:
            assert place[a] < place[b]
            assert graph.reachable[a] & graph.reachable[b] == graph.reachable[b]


BASE = Convolution("x", (64, 8, 8), (8, 8), (3, 3), (1, 1), (1, 1), 1, "relu")


@pytest.mark.parametrize(
    ("other", "merges"),
    [
        (BASE, True),
        (replace(BASE, kernel=(1, 1), padding=(0, 0)), True),
        (replace(BASE, kernel=(1, 3), padding=(0, 1)), True),
        (replace(BASE, source="y"), False),
        (replace(BASE, stride=(2, 2)), False),
        (replace(BASE, activation=""), False),
        (replace(BASE, groups=2), False),
        (replace(BASE, dilation=(2, 2)), False),
        (replace(BASE, input_shape=(32, 8, 8)), False),
        (replace(BASE, output_size=(6, 6), padding=(0, 0)), False),
        # Equal sizes, but the taps of an even kernel lie half a pixel off.
        (replace(BASE, kernel=(2, 2), padding=(1, 1)), False),
    ],
)
def test_what_may_be_merged(other: Convolution, merges: bool) -> None:
    graph = OperatorGraph.from_edges(2, [], [Operator("a", "conv", BASE), Operator("b", "conv", other)])
    first, second = graph.merge_classes()
    assert (first == second) == merges


def test_grouped_convolutions_merge_with_none() -> None:
    grouped = Operator("a", "conv", replace(BASE, groups=2))
    assert OperatorGraph.from_edges(2, [], [grouped, grouped]).merge_classes() == [-1, -1]


def test_a_small_graph_is_one_part() -> None:
    assert partition(SQUEEZENET) == [SQUEEZENET.order]
    assert partition(OperatorGraph.from_edges(0, [])) == []


def test_parts_end_at_cut_points_where_they_can() -> None:
    shift = len(INCEPTION)
    twice = [
        *INCEPTION.edges,
        *((a + shift, b + shift) for a, b in INCEPTION.edges),
        *((10, shift + number) for number in (0, 1, 4, 8)),
    ]
    parts = partition(OperatorGraph.from_edges(2 * shift, twice), max_part_size=15)
    assert [set(part) for part in parts] == [set(range(shift)), set(range(shift, 2 * shift))]


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_parts_cover_the_graph_in_order(most: int) -> None:
    generator = np.random.default_rng(most)
    for _ in range(50):
        graph = random_graph(generator, 20)
        parts = partition(graph, most)
        assert sorted(number for part in parts for number in part) == list(range(len(graph)))
        assert all(1 <= len(part) <= most for part in parts)
        of = {number: i for i, part in enumerate(parts) for number in part}
        assert all(of[a] <= of[b] for a, b in graph.edges)


def test_parts_need_a_size() -> None:
    with pytest.raises(ArgumentError, match="max_part_size"):
        partition(SQUEEZENET, 0)
