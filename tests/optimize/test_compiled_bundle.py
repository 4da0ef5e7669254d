"""A bundle whose recipe ends with the compiler: it runs compiled where that is possible, and interpreted elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from report_sample import sample_report

import taut
from taut.errors import BuildError
from taut.graph import Graph, capture
from taut.optimize import Recipe, _compiled, _session, load
from taut.optimize import _bundle as bundles
from taut.runtime import Opcode

pytestmark = [
    pytest.mark.usefixtures("compiling_host"),
    pytest.mark.skipif(find_spec("halide") is None, reason="the extra compile is not installed"),
]
MISSING_FOR_COMPILING = _compiled.missing_for_compiling


@pytest.fixture
def compiling_host(made_up_host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compiled, "missing_for_compiling", MISSING_FOR_COMPILING)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    dynamic = ({0: torch.export.Dim.AUTO},)
    graph = capture(network(), (torch.zeros(4, 6),), dynamic_shapes=dynamic)
    return bundles.write_bundle(tmp_path / "net.taut", graph, Recipe.make([("compile", {})], 1), sample_report())


def test_it_runs_compiled(bundle: Path) -> None:
    session = load(bundle)
    assert session.program is not None
    assert session.note == ""
    x = torch.randn(9, 6)
    assert torch.allclose(session(x), network()(x), atol=1e-5)
    assert b"\x7fELF" not in b"".join(path.read_bytes() for path in bundle.iterdir())


def test_a_host_without_the_compiler_interprets_and_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compiled, "missing_for_compiling", lambda: "no C++ compiler was found")
    session = load(bundle)
    assert session.program is None
    assert "no C++ compiler" in session.note
    x = torch.randn(9, 6)
    assert torch.allclose(session(x), network()(x), atol=1e-5)


def test_a_host_whose_linker_fails_interprets_and_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Graph) -> None:
        raise BuildError("the linker is broken")

    monkeypatch.setattr(_session, "compile_graph", fail)
    session = load(bundle)
    assert "the linker is broken" in session.note
    assert session(torch.randn(2, 6)).shape == (2, 4)


@pytest.mark.parametrize(
    ("queues", "note"),
    [(["0", "1"], ""), (["0 1"], ""), (["0", "1 7"], "on one worker"), (["nonsense"], "on one worker")],
)
def test_a_schedule_of_the_recipe_is_kept_to_where_it_fits(tmp_path: Path, queues: list[str], note: str) -> None:
    graph = capture(network(), (torch.zeros(4, 6),))
    recipe = Recipe.make([("compile", {"queues": queues})], 1)
    session = load(bundles.write_bundle(tmp_path / "net.taut", graph, recipe, sample_report()))
    assert session.program is not None
    assert note in session.note
    assert bool(note) == bool(session.note)
    parallel = any(words[0] == Opcode.PARALLEL for words in session.program.program.functions[0].instructions)
    assert parallel == (not note)
    x = torch.randn(4, 6)
    assert torch.allclose(session(x), network()(x), atol=1e-5)


def test_the_job_measures_the_compiler_like_any_technique(tmp_path: Path) -> None:
    result = taut.optimize(network(), torch.randn(16, 6), budget=4, only=("compile",), out=tmp_path / "net.taut")
    candidate = next(one for one in result.report.candidates if one.name == "compile")
    assert candidate.change_summary is not None
    assert "2 kernels generated, nothing on ATen" in candidate.change_summary
    assert candidate.quality is not None
    assert candidate.quality.within_limit
    compiled = [step.name for step in result.report.recipe.steps] == ["compile"]
    assert compiled == (candidate.status == "kept") == (result.session.program is not None)
    assert (load(tmp_path / "net.taut").program is not None) == compiled
    if compiled:
        assert {row.op for row in result.report.operators if row.after_seconds is not None} == {"linear", "machine"}


def test_a_recipe_by_hand_compiles(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{pass: compile}]\nthreads: 1\n")
    result = taut.optimize(network(), torch.randn(16, 6), budget=2, recipe=recipe)
    candidate = next(one for one in result.report.candidates if one.name == "compile")
    assert "named by the recipe" in candidate.reason
