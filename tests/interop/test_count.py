"""The size of the search, against the published tables and against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from brute_force import all_costs
from interop_graphs import INCEPTION, NASNET_CELL, SQUEEZENET, random_costs, random_graph

from taut.compile.interop import Counts, OperatorGraph, count, read_ios_graph, transition_bound, width
from taut.errors import ArgumentError, GraphError


@pytest.mark.parametrize(
    ("graph", "d", "bound", "counts"),
    [
        (SQUEEZENET, 3, 2.2e2, Counts(states=12, transitions=51, schedules=131)),
        (INCEPTION, 6, 2.6e4, Counts(states=180, transitions=4_871, schedules=3_757_392)),
    ],
)
def test_counts_of_the_paper(graph: OperatorGraph, d: int, bound: float, counts: Counts) -> None:
    assert count(graph) == counts
    assert width(graph) == d
    assert transition_bound(graph) == pytest.approx(bound, rel=0.03)


def test_a_group_has_one_head() -> None:
    # Of 0 -> 2 <- 1, all three are no stage, though nothing that is left needs them: 2 would follow two heads.
    v_shape = OperatorGraph.from_edges(3, [(0, 2), (1, 2)])
    assert count(v_shape) == Counts(states=4, transitions=8, schedules=5)


def test_a_nasnet_cell_is_as_wide_as_the_paper_says() -> None:
    assert len(NASNET_CELL) == 18
    assert width(NASNET_CELL) == 8
    assert transition_bound(NASNET_CELL) == pytest.approx(5.2e6, rel=0.02)
    assert count(NASNET_CELL).transitions < transition_bound(NASNET_CELL)


@pytest.mark.parametrize(
    ("name", "size", "d", "counts"),
    [
        ("ws-16-4-0.75-2", 17, 6, Counts(235, 5_807, 5_992_517_240)),
        ("ws-32-4-0.75-3", 33, 8, Counts(4_276, 762_079, 247_292_883_164_145_817_759_652)),
        ("ws-32-4-0.75-4", 33, 8, Counts(5_420, 1_170_663, 91_973_106_270_886_052_032_664)),
        ("ws-32-4-0.75-5", 33, 7, Counts(4_799, 921_106, 2_633_980_945_669_053_985_037_738)),
    ],
)
def test_random_graphs(published: Path, name: str, size: int, d: int, counts: Counts) -> None:
    graph = read_ios_graph(published / "randwire" / f"{name}.txt")
    assert len(graph) == size
    assert width(graph) == d
    assert count(graph) == counts
    assert counts.transitions < transition_bound(graph)


def test_the_largest_random_graph(published: Path) -> None:
    graph = read_ios_graph(published / "randwire" / "ws-320-20-0.75-x.txt")
    assert len(graph) == 321
    counts = count(graph, r=3, s=8)
    assert (counts.states, counts.transitions) == (31_387, 4_011_115)
    assert len(str(counts.schedules)) == 219


@pytest.mark.parametrize(("r", "s"), [(None, None), (1, 2), (2, 1), (3, 8)])
def test_schedules_are_as_many_as_brute_force_finds(r: int | None, s: int | None) -> None:
    generator = np.random.default_rng(5)
    for _ in range(25):
        graph = random_graph(generator, 6)
        costs = all_costs(graph, random_costs(generator), r or 6, s or 6)
        assert count(graph, r, s).schedules == len(costs)


def test_the_order_of_numbers_does_not_matter() -> None:
    generator = np.random.default_rng(6)
    for _ in range(20):
        names = generator.permutation(11)
        renamed = OperatorGraph.from_edges(11, [(names[a], names[b]) for a, b in INCEPTION.edges])
        assert count(renamed) == count(INCEPTION)


def test_sets_of_any_number_of_words() -> None:
    for size in (63, 64, 65, 128, 129, 600):
        chain = OperatorGraph.from_edges(size, [(i, i + 1) for i in range(size - 1)])
        counts = count(chain)
        assert counts == Counts(size, size * (size + 1) // 2, 2 ** (size - 1))
        assert width(chain) == 1


def test_nothing_to_count() -> None:
    assert count(OperatorGraph.from_edges(0, [])) == Counts(0, 0, 1)
    assert width(OperatorGraph.from_edges(0, [])) == 0


def test_limits() -> None:
    antichain = OperatorGraph.from_edges(40, [])
    with pytest.raises(GraphError, match="more than 1000 states"):
        count(antichain, state_limit=1000)
    with pytest.raises(GraphError, match="more than 1000 transitions"):
        count(antichain, transition_limit=1000)
    with pytest.raises(ArgumentError, match="r: got 0"):
        count(antichain, r=0)
    with pytest.raises(ArgumentError, match="s: got -1"):
        count(antichain, s=-1)
