"""A search over made-up passes, with made-up speeds in place of a clock."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from taut.errors import EmptyChangeError
from taut.graph import Graph, Interpreter, bind_sizes, capture
from taut.optimize import Limit, _compiled, choose_metric, load_data
from taut.optimize import _planner as planning
from taut.optimize import _program as compiling
from taut.optimize import _search as searching
from taut.optimize._quality import Judge, collect
from taut.optimize._settings import Settings
from taut.stats import PairedResult


class Speeds:
    """Seconds a pass for each arm: eager, then the product of the gains of the passes in an interpreter's graph."""

    def __init__(
        self,
        gains: Mapping[str, float],
        *,
        eager: Mapping[int, float] | None = None,
        saved: Mapping[str, int] | None = None,
    ) -> None:
        self.gains = gains
        self.saved = saved or {}
        self.eager = eager or {1: 1.0, 2: 1.0}
        self.applied: dict[int, tuple[str, ...]] = {}
        self.alive: list[Graph] = []  # an id is only unique while its object lives

    def compare(self, baseline: FakeArm, candidate: FakeArm, **_: object) -> PairedResult:
        before, after = self.seconds(baseline), self.seconds(candidate)
        ratio = before / after
        verdict = "faster" if ratio > 1.01 else "slower" if ratio < 0.99 else "no evidence"
        return PairedResult(
            verdict,
            ratio,
            ratio * 0.999,
            ratio * 1.001,
            0.99,
            0.01,
            20,
            before,
            after,
            "wall",
            0.1,
            "decided",
            (math.log(ratio),),
        )

    def stored_bytes(self, graph: Graph) -> int:
        return 1000 - sum(self.saved.get(name, 0) for name in self.applied.get(id(graph), ()))

    def seconds(self, arm: FakeArm) -> float:
        names = self.applied.get(id(getattr(arm.model, "graph", None)), ())
        if isinstance(arm.model, FakeProgram):
            names = (*names, "compile", *("schedule",) * (arm.model.workers > 1))
        return self.eager[arm.threads] / math.prod(self.gains.get(name, 1.0) for name in names)


@dataclasses.dataclass(frozen=True)
class FakeArm:
    """What would be timed."""

    model: object
    threads: int
    name: str


class FakeWorkload:
    """Makes arms that nobody times."""

    batches = ((torch.zeros(8, 4),),)

    def arm(self, model: object, threads: int, name: str) -> FakeArm:
        return FakeArm(model, threads, name)


class FakeProgram:
    """What the compiler would make of a graph, run by an interpreter.

    Attributes:
        program: with kernels, unless all of it runs on ATen.
        report: with the operators that run on ATen.
        workers: that its steps run on.
    """

    def __init__(self, graph: Graph, *, kernels: int = 1, fallbacks: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.program = types.SimpleNamespace(kernels=("map",) * kernels, fallbacks=())
        self.report = types.SimpleNamespace(kernels=kernels, fallbacks=fallbacks or {})
        self.workers = 1
        self._run = Interpreter(graph)

    def __call__(self, *inputs: Any) -> Any:
        return self._run(*inputs)


@dataclasses.dataclass(frozen=True)
class FakeApplicability:
    count: int
    reason: str = ""

    def __bool__(self) -> bool:
        return self.count > 0


@dataclasses.dataclass
class FakePass:
    """A pass that can be told apart; it mixes up the weights by `damage`, and has nothing to do after `emptied_by`."""

    name: str
    conflicts: tuple[str, ...] = ()
    count: int = 1
    damage: float = 0.0
    emptied_by: str = ""
    changes_numerics: bool = True
    speeds: Speeds | None = None

    @property
    def title(self) -> str:
        return f"Do {self.name}"

    def applies(self, _graph: object, **_options: object) -> FakeApplicability:
        return FakeApplicability(self.count, "nothing to do")

    def apply(self, graph: Graph, **_options: object) -> FakeChange:
        assert self.speeds is not None
        before = self.speeds.applied.get(id(graph), ())
        if self.emptied_by in before:
            raise EmptyChangeError(f"{self.name}: nothing to do")
        mixed = {key: value * (1 - self.damage) + self.damage * value.flip(0) for key, value in graph.constants.items()}
        changed = dataclasses.replace(graph, constants=mixed)
        self.speeds.alive.append(changed)
        self.speeds.applied[id(changed)] = (*before, self.name)
        return FakeChange(changed, f"changed by {self.name}", {"skip": (), "strength": 3}, self.name)


@dataclasses.dataclass(frozen=True)
class FakeChange:
    graph: Graph
    summary: str
    options: Mapping[str, object]
    pass_name: str


def search(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, passes: list[FakePass], speeds: Speeds, **settings: object
) -> searching.Search:
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    graph = capture(model, (inputs[:8],), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    labels = model(inputs).argmax(1)
    dataset = load_data({"inputs": (inputs,), "labels": labels}, batch_size=8)
    catalogue = {one.name: one for one in passes}
    for one in passes:
        one.speeds = speeds
    for room in (planning, searching, compiling):
        monkeypatch.setattr(room, "PASSES", catalogue)
    for room in (planning, searching):
        monkeypatch.setattr(room, "stored_bytes", speeds.stored_bytes)
    for room in (searching, compiling):
        monkeypatch.setattr(room, "compile_graph", FakeProgram)
        monkeypatch.setattr(room, "apply_recipe", lambda graph, steps: _apply(catalogue, graph, steps))
    monkeypatch.setattr(planning, "missing_needs", lambda _: ())
    monkeypatch.setattr(_compiled, "missing_for_compiling", lambda: "" if "compile" in speeds.gains else "no compiler")
    monkeypatch.setattr(planning.Planner, "calibrate", lambda *_: None)
    monkeypatch.setattr(planning.Planner, "gain", lambda *_: 1.5)
    monkeypatch.setattr(searching, "compare", speeds.compare)
    judge = Judge(
        dataset, choose_metric("accuracy", labels), Limit.parse("20%"), collect(model, dataset, what="original")
    )
    wanted = Settings(**{"threads": (1, 2), **settings})  # pyright: ignore[reportArgumentType]
    workload: Any = FakeWorkload()
    return searching.Search(wanted, model, graph, bind_sizes(graph, inputs[:8]), judge, workload, lambda *_: None)


def _apply(
    catalogue: Mapping[str, FakePass], graph: Graph, steps: Sequence[tuple[str, object]]
) -> tuple[Graph, list[Any]]:
    changes = []
    for name, _ in steps:
        changes.append(catalogue[name].apply(graph))
        graph = changes[-1].graph
    return graph, changes


def statuses(done: searching.Search) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for trial in done.trials:
        found.setdefault(trial.name, []).append(trial.status)
    return found
