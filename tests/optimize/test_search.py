"""The search's decisions, with made-up speeds in place of a clock."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from made_up_search import FakeArm, FakePass, Speeds, search, statuses

from taut.errors import EmptyChangeError, MeasurementError
from taut.optimize import _planner as planning
from taut.optimize._recipe import Recipe, parse_recipe
from taut.stats import PairedResult


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).eval()


def test_what_pays_is_stacked_best_first(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    done = search(
        monkeypatch, model, [FakePass("a"), FakePass("b"), FakePass("c")], Speeds({"a": 1.2, "b": 2.0, "c": 0.8})
    )
    done.run()
    assert done.incumbent.names == ("a", "b")  # the catalogue's order
    stacked = [trial.name for trial in done.trials if len(trial.on_top_of) > 1 and trial.name != "threads"]
    assert stacked == ["a", "c"]
    assert done.proven
    assert done.headline is not None
    assert done.headline.ratio == pytest.approx(2.4)
    assert statuses(done)["c"] == ["rejected", "rejected"]
    assert "slower" in next(trial.reason for trial in done.trials if trial.name == "c")


def test_what_is_slower_alone_may_pay_on_top(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    class Layout(Speeds):
        def seconds(self, arm: FakeArm) -> float:
            names = self.applied.get(id(getattr(arm.model, "graph", None)), ())
            return super().seconds(arm) * (0.5 if {"a", "b"} <= set(names) else 1.0)

    done = search(monkeypatch, model, [FakePass("a"), FakePass("b")], Layout({"a": 1.5, "b": 0.8}))
    done.run()
    assert done.incumbent.names == ("a", "b")


def test_a_kept_technique_gives_way_to_one_that_leaves_it_nothing(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    passes = [FakePass("large"), FakePass("small", emptied_by="large")]
    done = search(monkeypatch, model, passes, Speeds({}))
    planner = planning.Planner(done.base, {}, done.settings)
    _, steps, change = planner.apply((("small", {}),), "large")
    assert [name for name, _ in steps] == ["large"]
    assert change.summary == "changed by large"
    with pytest.raises(EmptyChangeError):
        planner.apply((("large", {}),), "small")


def test_the_recipe_and_the_report_hold_the_options_that_were_used(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    done = search(monkeypatch, model, [FakePass("a"), FakePass("b")], Speeds({"a": 1.2, "b": 2.0}))
    done.run()
    used = {"skip": [], "strength": 3}
    assert done.incumbent.steps == (("a", used), ("b", used))
    assert all(trial.options == used for trial in done.trials if trial.name in ("a", "b"))
    recipe = Recipe.make(list(done.incumbent.steps), 1)
    assert tuple(parse_recipe(recipe.to_yaml(), "recipe.yaml").passes) == done.incumbent.steps


def test_a_conflicting_technique_is_rejected_with_the_winners_name(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    done = search(monkeypatch, model, [FakePass("a", conflicts=("b",)), FakePass("b")], Speeds({"a": 1.2, "b": 2.0}))
    done.run()
    assert done.incumbent.names == ("b",)
    assert statuses(done)["a"] == ["rejected", "rejected"]
    assert any("conflicts with b" in trial.reason for trial in done.trials)


def test_a_candidate_that_breaks_quality_is_rejected_with_the_figure(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    done = search(monkeypatch, model, [FakePass("a", damage=1.0)], Speeds({"a": 5.0}))
    done.run()
    trial = next(trial for trial in done.trials if trial.name == "a")
    assert trial.status == "rejected"
    assert trial.quality is not None
    assert f"accuracy 1 -> {trial.quality.candidate:.5g}" in trial.reason
    assert trial.comparison is None
    assert not done.proven


def test_nothing_pays(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    done = search(monkeypatch, model, [FakePass("a"), FakePass("b", count=0)], Speeds({"a": 1.0}))
    done.run()
    assert done.incumbent.names == ()
    assert not done.proven
    assert statuses(done) == {
        "graph": ["rejected"],
        "a": ["rejected"],
        "b": ["not_applicable"],
        "threads": ["rejected"],
        "compile": ["not_applicable"],
    }


def test_the_best_eager_thread_count_is_what_everything_is_compared_with(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    speeds = Speeds({"a": 1.5}, eager={1: 1.0, 2: 3.0})
    done = search(monkeypatch, model, [FakePass("a")], speeds)
    done.run()
    assert done.eager_threads == 1
    assert done.baselines == {1: 1.0, 2: 3.0}
    assert done.headline is not None
    assert done.headline.ratio == pytest.approx(1.5)


def test_only_and_skip(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    passes = [FakePass("a"), FakePass("b")]
    done = search(monkeypatch, model, passes, Speeds({"a": 1.2, "b": 2.0}), only=("a",))
    done.run()
    assert done.incumbent.names == ("a",)
    assert statuses(done)["b"] == ["not_tried"]
    assert "threads" not in statuses(done)
    done = search(monkeypatch, model, passes, Speeds({"a": 1.2, "b": 2.0}), skip=("a", "threads"))
    done.run()
    assert done.incumbent.names == ("b",)


def test_a_stack_that_is_not_proven_keeps_nothing(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    class Fickle(Speeds):
        def compare(self, baseline: FakeArm, candidate: FakeArm, **keywords: object) -> PairedResult:
            result = super().compare(baseline, candidate, **keywords)
            return dataclasses.replace(result, verdict="no evidence") if candidate.name == "result" else result

    done = search(monkeypatch, model, [FakePass("a")], Fickle({"a": 1.5}))
    done.run()
    assert done.incumbent.names == ()
    assert "not proven" in next(trial.reason for trial in done.trials if trial.name == "a")


def test_the_size_goal_keeps_what_stores_less_and_what_is_faster_at_no_bytes(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    names = ["half", "quarter", "table", "fast", "large", "idle"]
    passes = [FakePass(name, conflicts=("half",) if name == "quarter" else ()) for name in names]
    speeds = Speeds(
        {"half": 2.0, "quarter": 0.5, "fast": 3.0, "large": 9.0},
        saved={"half": 500, "quarter": 750, "table": 100, "large": -1},
    )
    done = search(monkeypatch, model, passes, speeds, goal="size")
    done.run()
    assert done.incumbent.names == ("quarter", "table", "fast")
    assert done.proven
    reasons = {trial.name: trial.reason for trial in done.trials}
    assert "conflicts with quarter" in reasons["half"]
    assert "stores 1,001 bytes instead of 1,000" in next(t.reason for t in done.trials if t.name == "large")
    assert statuses(done)["idle"] == ["rejected", "rejected"]


def test_the_size_goal_begins_with_what_loses_nothing_and_then_with_the_smallest(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    passes = [FakePass("half"), FakePass("fold", changes_numerics=False), FakePass("quarter"), FakePass("idle")]
    speeds = Speeds({}, saved={"half": 500, "fold": 1, "quarter": 750})
    done = search(monkeypatch, model, passes, speeds, goal="size")
    done.run()
    alone = [trial.name for trial in done.trials if trial.on_top_of == ("graph",) and trial.name != "compile"]
    assert alone == ["fold", "quarter", "half", "idle"]


def test_the_size_goal_takes_the_next_best_where_the_smallest_loses_too_much(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    passes = [FakePass("quarter", conflicts=("half",), damage=1.0), FakePass("half")]
    done = search(monkeypatch, model, passes, Speeds({}, saved={"half": 500, "quarter": 750}), goal="size")
    done.run()
    assert done.incumbent.names == ("half",)
    assert "allowed" in next(trial.reason for trial in done.trials if trial.name == "quarter")


def test_what_only_saves_bytes_is_left_to_the_size_goal_and_to_only(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    passes = [FakePass("quantised_embedding"), FakePass("a")]
    speeds = Speeds({"quantised_embedding": 2.0}, saved={"quantised_embedding": 500})
    done = search(monkeypatch, model, passes, speeds)
    done.run()
    assert statuses(done)["quantised_embedding"] == ["not_tried"]
    assert "goal is size" in next(trial.reason for trial in done.trials if trial.name == "quantised_embedding")
    for settings in ({"goal": "size"}, {"only": ("quantised_embedding",)}):
        done = search(monkeypatch, model, passes, speeds, **settings)
        done.run()
        assert done.incumbent.names == ("quantised_embedding",)


def test_a_technique_that_fails_to_run_is_a_finding(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    class Broken(Speeds):
        def compare(self, baseline: FakeArm, candidate: FakeArm, **keywords: object) -> PairedResult:
            if candidate.name == "a":
                raise MeasurementError("a raised")
            return super().compare(baseline, candidate, **keywords)

    done = search(monkeypatch, model, [FakePass("a"), FakePass("b")], Broken({"b": 2.0}))
    done.run()
    assert done.incumbent.names == ("b",)
    assert "a raised" in next(trial.reason for trial in done.trials if trial.name == "a")


def test_a_peer_is_scored_and_timed_against_eager_and_never_kept(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    class Compiled(Speeds):
        def seconds(self, arm: FakeArm) -> float:
            return 0.1 if arm.name == "torch_compile" else super().seconds(arm)

    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    done = search(monkeypatch, model, [FakePass("a")], Compiled({"a": 2.0}), peers=("torch_compile",))
    done.run()
    peer = done.trials[-1]
    assert (peer.name, peer.status) == ("torch_compile", "peer")
    assert peer.comparison is not None
    assert peer.comparison.ratio == pytest.approx(10)
    assert peer.quality is not None
    assert peer.quality.within_limit
    assert done.incumbent.names == ("a",)


def test_a_peer_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr(torch, "compile", refuse)
    done = search(monkeypatch, model, [FakePass("a")], Speeds({"a": 2.0}), peers=("torch_compile",))
    done.run()
    assert done.proven
    assert done.trials[-1].status == "peer"
    assert done.trials[-1].reason == "peer failed: RuntimeError: no compiler here"
    assert done.trials[-1].comparison is None


def test_an_interruption_leaves_what_is_finished(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module) -> None:
    class Stopped(Speeds):
        def compare(self, baseline: FakeArm, candidate: FakeArm, **keywords: object) -> PairedResult:
            if candidate.name == "b":
                raise KeyboardInterrupt
            return super().compare(baseline, candidate, **keywords)

    done = search(monkeypatch, model, [FakePass("a"), FakePass("b")], Stopped({"a": 1.5, "b": 2.0}))
    with pytest.raises(KeyboardInterrupt):
        done.run()
    assert done.baselines
    assert statuses(done)["a"] == ["kept"]
    assert "b" in done.doing
