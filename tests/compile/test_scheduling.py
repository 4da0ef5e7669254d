"""Scheduling of programs: right whatever is chosen, kept only where it pays, and told truly."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tiles import Preferring
from torch import Tensor, nn

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.compile import CompiledModel, ScheduledModel, compile_model, load, save, schedule, schedule_of
from taut.compile._parallel import Part, Queues, Stages, apply_schedule, schedulable
from taut.compile._split import can_split
from taut.compile.interop import Stages as StageBatch
from taut.compile.interop import search
from taut.compile.scheduling import _schedule, chrome_trace, merge_convolutions, mergeable, render_schedule, summary
from taut.compile.scheduling._candidates import barrier_free, bound, predicted
from taut.compile.scheduling._costs import StageCosts, split_stages
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._operators import operators_of
from taut.compile.scheduling._plan import Candidate, candidates_of, find_stages, measure_steps
from taut.compile.scheduling._search import StageOracle, search_stages
from taut.errors import ArgumentError, Interrupted
from taut.graph import Graph, Interpreter, capture
from taut.runtime import Program

X = torch.randn(1, 16, 9, 7)


class Fire(nn.Module):
    """Three convolutions of one input, one of them over rows and one over columns, and a fourth behind them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.row, self.column = nn.Conv2d(16, 8, (1, 3), padding=(0, 1)), nn.Conv2d(16, 24, (3, 1), padding=(1, 0))
        self.one = nn.Conv2d(16, 16, 1, bias=False)
        self.last = nn.Conv2d(48, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.cat([torch.relu(layer(x)) for layer in (self.row, self.column, self.one)], 1)
        return self.last(wide) + x


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_model(Fire().eval(), (X,))


@pytest.fixture(scope="module")
def scheduled(compiled: CompiledModel) -> ScheduledModel:
    return schedule(compiled, (X,), budget=2, exact=True)


def test_a_scheduled_model_gives_the_bits_of_the_sequential_program(
    compiled: CompiledModel, scheduled: ScheduledModel
) -> None:
    assert torch.equal(scheduled(X), compiled(X))


def test_merged_and_split_by_rows_it_gives_the_same_up_to_rounding(compiled: CompiledModel) -> None:
    made = schedule(compiled, (X,), budget=1)
    torch.testing.assert_close(made(X), compiled(X), rtol=1e-4, atol=1e-4)


def test_the_report_accounts_for_every_operator_and_candidate(scheduled: ScheduledModel) -> None:
    report = scheduled.schedule
    names = [one.name for one in report.candidates]
    assert names[:2] == ["sequential", "stages"]
    assert report.kept in names
    assert {"list", "split", "intra"} <= set(names)
    placed = [name for stage in report.stages for group in stage.groups for name in group]
    assert len(placed) == report.operators
    assert all(stage.predicted_seconds > 0 and stage.measured_seconds > 0 for stage in report.stages)
    assert 0 < report.bound <= report.candidate("sequential").predicted_seconds * 1.001
    assert report.gap == pytest.approx(report.seconds / report.bound - 1)
    assert report.verdict is not None
    assert (report.kept == "sequential") == (report.verdict.verdict != "faster")
    assert report.stage_error is not None
    assert any("gap" in line for line in summary(report))


def test_its_timelines_hold_every_step_once_and_no_worker_does_two_things_at_once(scheduled: ScheduledModel) -> None:
    report = scheduled.schedule
    assert set(report.timelines) == {report.kept, "stages"}
    for spans in report.timelines.values():
        for worker in range(report.workers):
            own = sorted((one.begin, one.end) for one in spans if one.worker == worker)
            assert all(a[1] <= b[0] + 1e-12 for a, b in itertools.pairwise(own))
        assert min(one.begin for one in spans) == 0
    events = chrome_trace(report)["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == sum(map(len, report.timelines.values()))
    json.dumps(events, allow_nan=False)
    page = render_schedule("<net>", report)
    assert "&lt;net&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == len(report.timelines)


def test_a_saved_schedule_comes_back(scheduled: ScheduledModel, tmp_path: Path) -> None:
    again = load(save(scheduled, tmp_path / "fire.taut", example_inputs=(X,)))
    assert torch.equal(again(X), scheduled(X))
    assert schedule_of(again.program) == dataclasses.replace(scheduled.schedule, timelines={})
    assert again.program.functions == scheduled.program.functions


@pytest.mark.parametrize("note", ["", "7", "{}", "[" * 10_000, '{"stages": 3}', "null"])
def test_a_strange_note_is_no_schedule(compiled: CompiledModel, note: str) -> None:
    assert schedule_of(dataclasses.replace(compiled.program, notes={"schedule": note})) is None


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_note_is_no_schedule_or_a_sound_one(scheduled: ScheduledModel, data: st.DataObject) -> None:
    document = json.loads(scheduled.program.notes["schedule"])
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(st.sampled_from([None, -1, "x", [], {}, [{}], [None], 1e400, True]))
    program: Program = dataclasses.replace(scheduled.program, notes={"schedule": json.dumps(document)})
    found = schedule_of(program)
    if found is not None:
        json.dumps(found.to_dict(), allow_nan=False)
        summary(found)
        render_schedule("net", found)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 65}, "workers"),
        ({"budget": 0}, "budget"),
        ({"budget": float("inf")}, "budget"),
    ],
)
def test_arguments_out_of_range_are_refused(compiled: CompiledModel, options: dict[str, int], word: str) -> None:
    with pytest.raises(ArgumentError, match=word):
        schedule(compiled, (X,), **options)  # pyright: ignore[reportArgumentType]


def test_a_model_on_several_workers_is_refused(compiled: CompiledModel) -> None:
    steps = schedulable(compiled.lowered.blocks[0])
    lowered = apply_schedule(compiled.lowered, Queues((tuple(steps),)))
    with pytest.raises(ArgumentError, match="several workers already"):
        schedule(CompiledModel(compiled.graph, lowered, compiled.session, compiled.report), (X,))


def test_a_schedule_keeps_devices_and_tiles(compiled: CompiledModel) -> None:
    lowered = dataclasses.replace(compiled.lowered, devices={"last": 1}, tiles=Preferring(16))
    steps = schedulable(lowered.blocks[0])
    made = apply_schedule(lowered, Queues((tuple(steps),)))
    assert (made.devices, made.tiles) == (lowered.devices, lowered.tiles)


def test_nothing_is_merged_across_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def priced(*_: object) -> dict[object, object]:
        raise AssertionError

    monkeypatch.setattr("taut.compile.scheduling._schedule.merge_prices", priced)
    model = compile_model(Fire().eval(), (X,), devices={"row": 1})
    made = schedule(model, (X,), budget=1)
    torch.testing.assert_close(made(X), model(X), rtol=1e-4, atol=1e-4)


def test_sizes_that_vary_are_refused() -> None:
    model = compile_model(nn.ReLU(), (torch.randn(4, 3),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    with pytest.raises(ArgumentError, match="may vary"):
        schedule(model)


def test_one_worker_keeps_the_sequential_program(compiled: CompiledModel) -> None:
    made = schedule(compiled, workers=1, budget=1)
    assert made.schedule.kept == "sequential"
    assert torch.equal(made(X), compiled(X))


class Interleaved(nn.Module):
    """Two branches whose layers take turns in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.a(x), self.b(x)
        return torch.cat([self.c(first), self.d(second)], 1)


def test_on_one_worker_stages_are_timed_in_their_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[str]] = []

    def timed(staged: Candidate, _: object, counts: list[int]) -> list[float]:
        orders.append([step.label for step in staged.lowered.blocks[0].steps])
        return [1.0] * len(counts)

    monkeypatch.setattr("taut.compile.scheduling._schedule.stage_seconds", timed)
    x = torch.randn(1, 64, 14, 14)
    report = schedule(compile_model(Interleaved().eval(), (x,)), (x,), workers=1, budget=1).schedule
    names = [name for stage in report.stages for group in stage.groups for name in group if name in "abcd"]
    assert [label for label in orders[0] if label in "abcd"] == names
    assert set(names) == set("abcd")


class Sorted(nn.Module):
    """Sorts in the middle, which runs on ATen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.sort(self.a(x) + torch.tanh(self.b(x)))[0]
        return self.c(both) + self.b(both)


def test_what_runs_on_aten_counts_in_every_prediction() -> None:
    x = torch.randn(5, 8)
    measured = measure_steps(compile_model(Sorted().eval(), (x,)).lowered, (x,), 2, Kernels())
    plan = find_stages(measured, 0.0, lambda _: None)
    block = measured.lowered.blocks[0]
    made = {one.name: one.predicted for one in candidates_of(measured, plan)}
    expected = predicted(block, plan.stages(2), measured.durations, measured.split)
    assert made["stages"] == pytest.approx(expected)
    assert expected > plan.schedule.cost  # pyright: ignore[reportOperatorIssue]


def test_what_runs_on_aten_stays_in_its_place() -> None:
    model, x = compile_model(Sorted().eval(), (torch.randn(5, 8),)), torch.randn(5, 8)
    made = schedule(model, (x,), budget=1)
    assert torch.equal(made(x), model(x))
    operators = operators_of(model.lowered.blocks[0], [1.0] * len(model.lowered.blocks[0].steps))
    assert len(operators.segments) == 2


@pytest.mark.parametrize("during", ["measuring stages", "comparing the best with the sequential program"])
def test_an_interrupt_keeps_what_was_measured(compiled: CompiledModel, during: str) -> None:
    def stop(doing: str, _: float) -> None:
        if doing == during:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="sequential program is kept") as caught:
        schedule(compiled, (X,), budget=1, exact=True, progress=stop)
    result = caught.value.result
    assert isinstance(result, ScheduledModel)
    assert result.schedule.kept == "sequential"
    assert result.schedule.stages
    assert torch.equal(result(X), compiled(X))


def test_an_interrupt_while_the_report_is_made_keeps_the_choice(
    compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans, asked = _schedule.spans_of, []

    def stop(*given: Any) -> object:
        asked.append(given)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return spans(*given)

    monkeypatch.setattr(_schedule, "spans_of", stop)
    with pytest.raises(Interrupted, match="after the choice") as caught:
        schedule(compiled, (X,), budget=1)
    result = caught.value.result
    assert isinstance(result, ScheduledModel)
    assert result.schedule.verdict is not None
    assert torch.allclose(result(X), compiled(X), atol=1e-5)


def test_an_interrupt_before_anything_was_measured_says_so(compiled: CompiledModel) -> None:
    def stop(doing: str, _: float) -> None:
        if doing == "timing each step":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="before the steps") as caught:
        schedule(compiled, (X,), budget=1, progress=stop)
    assert caught.value.result is None


def graph_of(module: nn.Module, x: Tensor) -> Graph:
    return capture(module.eval(), (x,))


def test_merged_convolutions_give_the_same_values() -> None:
    graph = graph_of(Fire(), X)
    nodes = [one.node for one in mergeable(graph)]
    assert len(nodes) == 4
    expected = Interpreter(graph)(X)
    for size in (2, 3):
        for chosen in itertools.combinations(nodes[:3], size):
            merged = merge_convolutions(graph, [chosen])
            assert sum("conv" in node.op for node in merged.nodes) == 5 - size
            torch.testing.assert_close(Interpreter(merged)(X), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compile_model(merge_convolutions(graph, [nodes[:3]]))(X), expected, rtol=1e-4, atol=1e-4)


def test_slices_side_by_side_need_no_concatenation() -> None:
    graph = graph_of(Fire(), X)
    nodes = [one.node for one in mergeable(graph)]
    assert not any("cat" in node.op for node in merge_convolutions(graph, [nodes[:3]]).nodes)


@given(st.integers(0, 10_000))
@settings(max_examples=6)
def test_random_convolutions_of_one_input_merge(seed: int) -> None:
    draw = random.Random(seed)
    stride = draw.choice([1, 2])
    sides = [(draw.choice([1, 3, 5]), draw.choice([1, 3])) for _ in range(3)]
    layers = nn.ModuleList(
        nn.Conv2d(3, draw.randint(1, 5), side, stride, (side[0] // 2, side[1] // 2), bias=draw.random() < 0.5)
        for side in sides
    )
    order = draw.sample(range(3), 3)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            results = [torch.nn.functional.silu(layer(x)) for layer in self.layers]
            return torch.cat([results[i] for i in order], 1)

    x = torch.randn(2, 3, draw.randint(5, 9), draw.randint(5, 9))
    graph = graph_of(Net(), x)
    nodes = [one.node for one in mergeable(graph)]
    merged = merge_convolutions(graph, [nodes])
    torch.testing.assert_close(Interpreter(merged)(x), Interpreter(graph)(x), rtol=1e-4, atol=1e-4)


def test_convolutions_that_differ_are_not_merged() -> None:
    graph = graph_of(Fire(), X)
    nodes = [one.node for one in mergeable(graph)]
    for chosen in ([nodes[0], nodes[3]], nodes[:1], [0, 1]):
        with pytest.raises(ArgumentError, match="groups"):
            merge_convolutions(graph, [chosen])


@pytest.fixture(scope="module")
def base(compiled: CompiledModel) -> StageCosts:
    costs = StageCosts(compiled.lowered, 2, Kernels())
    costs.generate()
    return costs


class MadeUpCosts(StageCosts):
    """Costs that depend on what a stage holds, not below what its estimate allows; it counts what it is asked."""

    def __init__(self, base: StageCosts, durations: list[float]) -> None:
        self.__dict__.update(base.__dict__)
        self.measured = {}
        self._durations = durations

    def _measure(self, stages: object) -> float:
        total = 0.0
        for stage in stages:  # pyright: ignore[reportGeneralTypeIssues]
            loads = [sum(self._seconds(item) for item in group) for group in stage]
            spread = random.Random(str(stage)).uniform(0.95, 1.4)
            total += spread * max(max(loads), sum(loads) / self.workers)
        return total

    def _seconds(self, item: int | Part) -> float:
        return self._durations[item.step] / item.parts if isinstance(item, Part) else self._durations[item]


@given(st.integers(0, 1000))
@settings(max_examples=15)
def test_measuring_only_what_looks_best_finds_the_cheapest_stages(
    compiled: CompiledModel, base: StageCosts, seed: int
) -> None:
    block = compiled.lowered.blocks[0]
    draw = random.Random(seed)
    durations = [draw.uniform(5e-6, 5e-5) for _ in block.steps]
    costs = MadeUpCosts(base, durations)
    split = {step: durations[step] / 2 for step in costs.steps if costs.can_split(step)}
    operators = operators_of(block, durations)
    oracle = StageOracle(operators, costs, durations, split)
    plan = search_stages(operators, oracle, 2)
    assert plan.complete

    def everything(stages: StageBatch) -> list[float]:
        return [oracle.measure(oracle.plain(stage)) for stage in stages]

    best = search(operators.graph, everything, 3, 2, ("concurrent", "intra"))
    assert plan.schedule.cost == pytest.approx(best.cost)
    assert plan.measured <= len(oracle.known)
    apply_schedule(compiled.lowered, plan.stages(2))


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_the_stages_of_a_larger_batch_are_no_better_than_those_of_a_small_one(
    compiled: CompiledModel, base: StageCosts, seed: int
) -> None:
    """Their costs are the same but for the factor, so that only what is searched can differ."""
    block = compiled.lowered.blocks[0]
    draw = random.Random(seed)
    small = [draw.uniform(1e-6, 4e-6) for _ in block.steps]
    costs = MadeUpCosts(base, small)
    split = {step: small[step] / 2 for step in costs.steps if costs.can_split(step)}
    plans = []
    for batch in (1, 8):
        operators = operators_of(block, [batch * seconds for seconds in small])
        plans.append(search_stages(operators, StageOracle(operators, costs, small, split), 2))
    own, other = (sum(plan.schedule.costs or ()) for plan in plans)
    assert own <= other * (1 + 1e-9)


def test_stages_are_measured_once_for_each_strategy(compiled: CompiledModel) -> None:
    costs = StageCosts(compiled.lowered, 2, Kernels())
    costs.generate()
    first, second, *_ = (step for step in costs.steps if costs.can_split(step))

    def figures() -> list[float | None]:
        return [costs.sequential([first]), costs.split([first]), costs.concurrent([[first], [second]])]

    found = figures()
    assert all(figure is None or figure > 0 for figure in found)
    assert found[0] is not None
    assert figures() == found
    assert len(costs.measured) == 3


def test_a_search_without_time_still_gives_a_schedule(compiled: CompiledModel) -> None:
    measured = measure_steps(compiled.lowered, (X,), 2, Kernels())
    assert measured.estimated == set(measured.split)
    plan = find_stages(measured, 0.0, lambda _: None)
    assert not plan.complete
    assert plan.measured == 0
    assert all(plan.estimated)
    apply_schedule(compiled.lowered, plan.stages(2))


@given(st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=20)
def test_no_schedule_is_predicted_below_the_bound(compiled: CompiledModel, seed: int, workers: int) -> None:
    block = compiled.lowered.blocks[0]
    draw = random.Random(seed)
    durations = [draw.uniform(1e-6, 3e-5) for _ in block.steps]
    split = {step: durations[step] / workers for step in schedulable(block) if can_split(block.steps[step], workers)}
    operators = operators_of(block, durations)
    least = max(bound(block, durations, split, workers))
    made = barrier_free(block, operators, durations, split, workers, exact=True)
    for one in made.values():
        assert isinstance(one, Queues)
        apply_schedule(compiled.lowered, one)
        assert predicted(block, one, durations, split) >= least * (1 - 1e-9)
    assert predicted(block, None, durations, split) == pytest.approx(sum(durations))


def test_whole_neighbours_stay_together() -> None:
    assert split_stages([1, 2, 3, 4], {3: 2}) == [((1, 2),), ((Part(3, 0, 2),), (Part(3, 1, 2),)), ((4,),)]


def test_light_steps_run_with_the_only_one_that_needs_them(compiled: CompiledModel) -> None:
    block = compiled.lowered.blocks[0]
    heavy = operators_of(block, [1e-6] * len(block.steps))
    light = operators_of(block, [1e-6] * (len(block.steps) - 1) + [1.0])
    assert [len(own) for own in heavy.steps] == [1] * len(heavy.steps)
    assert len(light.graph) < len(heavy.graph)
    assert sorted(step for own in light.steps for step in own) == schedulable(block)
    stages = tuple((steps,) for steps in (light.steps[number] for number in light.graph.order))
    apply_schedule(compiled.lowered, Stages(stages))
