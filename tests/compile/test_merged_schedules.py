"""Convolutions of one input as one on workers: chosen where prices say that it pays, never where bits must stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_scheduling import Fire, X

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.compile import CompiledModel, compile_model, load, save, schedule, schedule_of
from taut.compile._program import Lowered
from taut.compile.interop import Schedule
from taut.compile.scheduling._choose import Choice
from taut.compile.scheduling._costs import StageCosts
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._operators import Operators, convolutions_of
from taut.compile.scheduling._plan import Candidate, Measured, find_stages, measure_steps
from taut.graph import Graph

NET = Fire().eval()
_CHEAP = 1e-9


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_model(NET, (X,))


@pytest.fixture(scope="module")
def measured(compiled: CompiledModel) -> Measured:
    return measure_steps(compiled.lowered, (X,), 2, Kernels())


def cheap_prices(
    graph: Graph, lowered: Lowered, operators: Operators, *_: object
) -> dict[frozenset[int], tuple[float, tuple[int, ...]]]:
    """As if all convolutions of one input took next to no time as one."""
    found = convolutions_of(lowered.blocks[0], operators.steps, graph)
    classes: dict[object, list[int]] = {}
    for number, one in found.items():
        classes.setdefault(one.convolution.merge_key(), []).append(number)
    groups = [group for group in classes.values() if len(group) > 1]
    return {frozenset(group): (_CHEAP, tuple(found[number].node for number in group)) for group in groups}


def merged_in(found: Schedule) -> list[frozenset[int]]:
    return [frozenset(one.operators) for one in found.stages if one.strategy == "merge" and len(one.groups) > 1]


def three_of(compiled: CompiledModel, measured: Measured) -> frozenset[int]:
    (group,) = cheap_prices(compiled.graph, compiled.lowered, measured.operators)
    assert len(group) == 3
    return group


def test_three_convolutions_are_merged_on_two_workers_where_that_is_cheapest(
    compiled: CompiledModel, measured: Measured
) -> None:
    three = three_of(compiled, measured)
    classes = measured.operators.graph.merge_classes()
    assert len({classes[number] for number in three}) == 1
    assert -1 not in {classes[number] for number in three}

    def search(prices: dict[frozenset[int], float]) -> list[frozenset[int]]:
        return merged_in(find_stages(measured, 0.0, lambda _: None, prices).schedule)

    assert search({three: _CHEAP}) == [three]
    assert search({three: 1.0}) == []
    assert search({}) == []
    pair = frozenset(sorted(three)[:2])
    assert search({three: 1.0, pair: _CHEAP}) == [pair]


def test_what_was_not_priced_is_never_merged_whatever_stages_take(
    compiled: CompiledModel, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = three_of(compiled, measured)
    monkeypatch.setattr(StageCosts, "_measure", lambda *_: 1.0)  # far above what steps take by themselves
    costs = StageCosts(measured.lowered, 2, measured.costs.kernels)
    fresh = Measured(measured.lowered, costs, measured.operators, measured.durations, {}, set())
    plan = find_stages(fresh, 10.0, lambda _: None, {three: 100.0})
    assert plan.complete
    assert merged_in(plan.schedule) == []


def test_a_program_of_merged_convolutions_gives_the_values_of_the_model(
    compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def keep(candidates: Sequence[Candidate], *_: Any) -> Choice:
        kept = next(one for one in candidates if one.name == "merged stages")
        return Choice(kept, {one.name: 1.0 for one in candidates}, None)

    monkeypatch.setattr("taut.compile.scheduling._schedule.merge_prices", cheap_prices)
    monkeypatch.setattr("taut.compile.scheduling._schedule.choose", keep)
    made = schedule(compiled, (X,), budget=1e-3)
    assert made.schedule.kept == "merged stages"
    assert "row+column+one" in {step.label for step in made.lowered.blocks[0].steps}
    torch.testing.assert_close(made(X), NET(X).detach(), rtol=1e-4, atol=1e-4)
    again = load(save(made, tmp_path / "merged.taut", example_inputs=(X,)))
    assert torch.equal(again(X), made(X))
    assert schedule_of(again.program) is not None


def test_nothing_is_priced_or_merged_where_bits_must_stay(
    compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def priced(*_: object) -> dict[object, object]:
        raise AssertionError

    monkeypatch.setattr("taut.compile.scheduling._schedule.merge_prices", priced)
    made = schedule(compiled, (X,), budget=1e-3, exact=True)
    assert not any("merged" in one.name for one in made.schedule.candidates)
    assert torch.equal(made(X), compiled(X))
