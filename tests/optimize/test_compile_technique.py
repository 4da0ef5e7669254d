"""What the search does with the compiler: what a program stands on, when it is kept, what it replaces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from made_up_search import FakePass, FakeProgram, Speeds, search, statuses

from taut.errors import ArgumentError, BuildError
from taut.graph import Graph
from taut.optimize import Recipe
from taut.optimize import _program as compiling
from taut.optimize._search import Search


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).eval()


def reason(done: Search, name: str) -> str:
    return next(trial.reason for trial in done.trials if trial.name == name)


def test_a_faster_program_stands_on_the_passes_that_paid(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    passes = [FakePass("fold", changes_numerics=False)]
    done = search(monkeypatch, model, passes, Speeds({"fold": 1.5, "compile": 2.0}, eager={1: 1.5, 2: 1.0}))
    done.run()
    assert done.incumbent.names == ("fold", "compile")
    assert isinstance(done.incumbent.program, FakeProgram)
    assert done.incumbent.threads == 1
    assert done.proven
    assert statuses(done)["compile"] == ["kept"]


def test_a_slower_program_is_not_kept(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    done = search(monkeypatch, model, [FakePass("fold")], Speeds({"fold": 1.5, "compile": 0.5}))
    done.run()
    assert done.incumbent.names == ("fold",)
    assert done.incumbent.program is None
    assert "slower" in reason(done, "compile")


def test_a_program_does_without_passes_that_serve_aten(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    passes = [FakePass("fold", changes_numerics=False), FakePass("fuse_linear", changes_numerics=False)]
    done = search(monkeypatch, model, passes, Speeds({"fold": 1.5, "fuse_linear": 1.4, "compile": 3.0}))
    done.run()
    assert done.incumbent.names == ("fold", "compile")
    assert "does not stand on it" in reason(done, "fuse_linear")
    assert statuses(done)["fuse_linear"] == ["rejected", "rejected"]


@pytest.mark.parametrize(("gain", "kept"), [(1.5, ("quarter", "compile")), (0.5, ("compile",))])
def test_a_program_without_what_changes_results_is_tried_as_well(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, gain: float, kept: tuple[str, ...]
) -> None:
    class Generated(Speeds):
        def seconds(self, arm: Any) -> float:
            names = self.applied.get(id(getattr(arm.model, "graph", None)), ())
            undone = isinstance(arm.model, FakeProgram) and "quarter" in names
            return super().seconds(arm) * (1.5 / gain if undone else 1.0)

    done = search(monkeypatch, model, [FakePass("quarter")], Generated({"quarter": 1.5, "compile": 4.0}))
    done.run()
    assert done.incumbent.names == kept
    assert sorted(statuses(done)["compile"]) == ["kept", "rejected"]


def test_with_the_size_goal_a_program_stores_no_more(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    speeds = Speeds({"quarter": 0.9, "compile": 4.0}, saved={"quarter": 750})
    done = search(monkeypatch, model, [FakePass("quarter")], speeds, goal="size")
    done.run()
    assert done.incumbent.names == ("quarter", "compile")


def test_what_runs_on_aten_alone_is_no_program(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    done = search(monkeypatch, model, [], Speeds({"compile": 9.0}))
    monkeypatch.setattr(compiling, "compile_graph", lambda graph: FakeProgram(graph, kernels=0))
    done.run()
    assert statuses(done)["compile"] == ["not_applicable"]
    assert "every operator would run on ATen" in reason(done, "compile")


@pytest.mark.parametrize("error", [BuildError("the linker is broken"), AssertionError("a defect")])
def test_a_failure_of_the_compiler_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, error: Exception
) -> None:
    def fail(_: Graph) -> FakeProgram:
        raise error

    done = search(monkeypatch, model, [FakePass("a")], Speeds({"a": 1.5, "compile": 9.0}))
    monkeypatch.setattr(compiling, "compile_graph", fail)
    done.run()
    assert done.incumbent.names == ("a",)
    assert str(error) in reason(done, "compile")


def test_a_host_that_cannot_compile_says_why(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    done = search(monkeypatch, model, [FakePass("a")], Speeds({"a": 1.5}))
    done.run()
    assert statuses(done)["compile"] == ["not_applicable"]
    assert reason(done, "compile") == "no compiler"


def test_skip_leaves_the_compiler_out(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    done = search(monkeypatch, model, [FakePass("a")], Speeds({"a": 1.5, "compile": 9.0}), skip=("compile",))
    done.run()
    assert statuses(done)["compile"] == ["not_tried"]


def test_threads_remain_where_part_of_a_program_runs_on_aten(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    speeds = Speeds({"compile": 3.0}, eager={1: 2.0, 2: 1.0})
    done = search(monkeypatch, model, [], speeds)
    monkeypatch.setattr(compiling, "compile_graph", lambda graph: FakeProgram(graph, fallbacks={"aten.sort": 1}))
    done.run()
    assert done.incumbent.names == ("compile",)
    assert done.incumbent.threads == 2


def test_a_recipe_that_ends_with_the_compiler_replays(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    recipe = Recipe.make([("fold", {}), ("compile", {})], 2)
    done = search(monkeypatch, model, [FakePass("fold")], Speeds({"fold": 1.5, "compile": 2.0}))
    done.replay(tuple(recipe.passes), recipe.threads)
    assert done.incumbent.names == ("fold", "compile")
    assert done.incumbent.program is not None
    assert [trial.status for trial in done.trials if trial.name in ("fold", "compile")] == ["kept", "kept"]


def scheduled(
    program: FakeProgram, _inputs: object, workers: int, _budget: float
) -> tuple[FakeProgram, dict[str, Any]]:
    made = FakeProgram(program.graph)
    made.workers = workers
    return made, {"queues": ["0", "1"]}


@pytest.mark.parametrize(("gain", "options"), [(1.5, {"queues": ["0", "1"]}), (0.8, {})])
def test_a_schedule_is_kept_where_it_pays_over_the_sequential_program(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, gain: float, options: dict[str, Any]
) -> None:
    done = search(monkeypatch, model, [], Speeds({"compile": 2.0, "schedule": gain}))
    monkeypatch.setattr(compiling, "propose_schedule", scheduled)
    done.run()
    assert done.incumbent.steps == (("compile", options),)
    assert sorted(statuses(done)["compile"]) == ["kept", "rejected"]
    rejected = next(trial for trial in done.trials if trial.name == "compile" and trial.status == "rejected")
    assert ("faster on 2 workers" if options else "slower") in rejected.reason


def test_no_schedule_is_looked_for_without_a_program_or_a_second_core(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(compiling, "propose_schedule", refuse)
    slow = search(monkeypatch, model, [], Speeds({"compile": 0.5}))
    slow.run()
    assert slow.incumbent.program is None


@pytest.mark.parametrize(
    "steps",
    [
        [("compile", {}), ("fold", {})],
        [("compile", {"jobs": 2})],
        [("compile", {"queues": "0 1"})],
        [("compile", {"queues": [0]})],
    ],
)
def test_a_recipe_names_the_compiler_last_with_no_option_but_a_schedule(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, steps: list[tuple[str, dict[str, Any]]]
) -> None:
    done = search(monkeypatch, model, [FakePass("fold")], Speeds({}))
    with pytest.raises(ArgumentError, match="compile"):
        done.replay(tuple(steps), 1)
