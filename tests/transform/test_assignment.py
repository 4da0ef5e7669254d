"""The choice of a scheme for each layer: the least error under a budget, against all choices there are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import ArgumentError
from taut.transform import SensitivityEntry, SensitivityTable, assign

SCHEMES = ("float32", "eight", "four", "three")


def table(rows, *, rest_bytes=0, rest_seconds=0.0):
    """A table from (error, bytes, seconds) by layer and scheme."""
    layers = tuple(f"layer{index}" for index in range(len(rows)))
    entries = [
        SensitivityEntry(layer, scheme, *cell)
        for layer, row in zip(layers, rows, strict=True)
        for scheme, cell in zip(SCHEMES, row, strict=False)
    ]
    return SensitivityTable(layers, SCHEMES[: len(rows[0])], tuple(entries), rest_bytes, rest_seconds)


def cost(entry, by):
    return entry.bytes if by == "bytes" else entry.seconds


def brute_force(found, budget, by):
    """The least summed error of all assignments within the budget; None where none is."""
    rest = found.rest_bytes if by == "bytes" else found.rest_seconds
    options = [[entry for entry in found.entries if entry.layer == layer] for layer in found.layers]
    sums = [
        sum(entry.error for entry in choice)
        for choice in itertools.product(*options)
        if rest + sum(cost(entry, by) for entry in choice) <= budget
    ]
    return min(sums, default=None)


errors = st.one_of(st.just(0.0), st.floats(1e-9, 1e3))
cells = st.tuples(errors, st.integers(0, 10**8), st.floats(1e-7, 1.0))
tables = st.integers(1, 4).flatmap(
    lambda schemes: st.lists(st.lists(cells, min_size=schemes, max_size=schemes), min_size=1, max_size=5)
)


@settings(max_examples=150, deadline=None)
@given(tables, st.floats(0, 1.2), st.sampled_from(["bytes", "seconds"]), st.integers(0, 10**6))
def test_no_assignment_within_the_budget_is_better(rows, share, by, rest):
    found = table(rows, rest_bytes=rest, rest_seconds=rest / 1e6)
    start = rest if by == "bytes" else rest / 1e6
    most = sum(max(cell[1] if by == "bytes" else cell[2] for cell in row) for row in rows)
    budget = start + share * most
    best = brute_force(found, budget, by)
    if best is None:
        with pytest.raises(ArgumentError, match="budget"):
            assign(found, budget=budget, by=by)
        return
    made = assign(found, budget=budget, by=by)
    assert made.cost <= budget
    assert made.error == pytest.approx(best, rel=1e-6, abs=0)
    assert made.bound <= made.error
    assert made.gap <= 1e-5
    assert set(made.schemes) == set(found.layers)


def test_the_least_budget_is_named_and_is_enough():
    found = table([[(0.0, 400, 1.0), (0.1, 100, 0.5)], [(0.0, 800, 1.0), (0.2, 200, 0.5)]], rest_bytes=50)
    with pytest.raises(ArgumentError, match="at least 350 bytes"):
        assign(found, budget=349)
    made = assign(found, budget=350)
    assert made.schemes == {"layer0": "eight", "layer1": "eight"}
    assert made.layers == ["layer0=eight", "layer1=eight"]
    assert (made.cost, made.gap) == (350, 0)


def test_without_pressure_every_layer_stays():
    found = table([[(0.0, 400, 1.0), (0.1, 100, 0.5)]] * 3)
    made = assign(found, budget=1e9)
    assert set(made.schemes.values()) == {"float32"}
    assert made.error == made.bound == 0


def test_a_table_cut_short_is_refused():
    found = table([[(0.0, 400, 1.0), (0.1, 100, 0.5)]] * 2)
    cut = SensitivityTable(found.layers, found.schemes, found.entries[:-1], 0, 0.0)
    assert cut.missing == [("layer1", "eight")]
    with pytest.raises(ArgumentError, match="layer1 lacks eight"):
        assign(cut, budget=1e9)


def test_seconds_need_a_cost_model():
    found = table([[(0.0, 400, None), (0.1, 100, None)]])
    with pytest.raises(ArgumentError, match="cost_model"):
        assign(found, budget=1.0, by="seconds")
    with pytest.raises(ArgumentError, match="'bytes' or 'seconds'"):
        assign(found, budget=1.0, by="watts")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("budget", [float("nan"), -1.0])
def test_a_budget_that_is_none(budget):
    with pytest.raises(ArgumentError, match="budget"):
        assign(table([[(0.0, 400, 1.0)]]), budget=budget)
