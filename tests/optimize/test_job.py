"""The whole job on a small real model, through the Python face."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import taut
from taut.errors import ArgumentError, ArtefactError, DataError, ExportError, Interrupted, ModelLoadError
from taut.optimize import Result, dry_run, load, technique_names
from taut.optimize import _search as searching
from taut.stats import Arm

pytestmark = pytest.mark.usefixtures("made_up_host")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 10),
    ).eval()


@pytest.fixture(scope="module")
def data() -> dict[str, object]:
    inputs = torch.randn(256, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return {"inputs": (inputs,), "labels": network()(inputs).argmax(1)}


@pytest.fixture(scope="module")
def result(made_up_host: None, data: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return taut.optimize(
        network(),
        torch.randn(16, 3, 16, 16),
        data=data,
        metric="accuracy",
        max_drop="5%",
        budget=4,
        only=("fold_batch_norm", "channels_last"),
        out=tmp_path_factory.mktemp("job") / "net.taut",
    )


def test_the_result_runs_like_the_model(result: Result, data: dict[str, object]) -> None:
    inputs = data["inputs"][0][:20]  # pyright: ignore[reportIndexIssue]
    expected = network()(inputs)
    assert torch.allclose(result(inputs), expected, atol=1e-4)
    assert result.bundle is not None
    assert torch.allclose(load(result.bundle)(inputs), expected, atol=1e-4)


def test_the_report_accounts_for_every_technique(result: Result) -> None:
    report = result.report
    assert report.status == "complete"
    assert {candidate.name for candidate in report.candidates} >= {"graph", *technique_names()} - {"threads"}
    assert all(candidate.reason for candidate in report.candidates)
    assert report.headline is not None or any("not proven" in warning for warning in report.warnings)
    assert [baseline.chosen for baseline in report.baselines].count(True) == 1
    assert report.metric is not None
    assert report.metric.baseline == 1.0
    assert report.operators
    assert report.host["cores"]
    assert result.bundle is not None
    assert json.loads((result.bundle / "report.json").read_text())["model"]["parameters"] == sum(
        parameter.numel() for parameter in network().parameters()
    )


def test_a_recipe_replays(data: dict[str, object], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{pass: fold_batch_norm}]\nthreads: 1\n")
    result = taut.optimize(network(), torch.randn(16, 3, 16, 16), data=data, max_drop="5%", budget=2, recipe=recipe)
    candidate = next(one for one in result.report.candidates if one.name == "fold_batch_norm")
    assert candidate.change_summary
    kept = [step.name for step in result.report.recipe.steps]
    assert kept == (["fold_batch_norm"] if candidate.status == "kept" else [])
    recipe.write_text("steps: [{pass: fold_nothing}]\nthreads: 1\n")
    with pytest.raises(ArgumentError, match="fold_nothing"):
        taut.optimize(network(), torch.randn(16, 3, 16, 16), data=data, budget=2, recipe=recipe)
    with pytest.raises(ArtefactError):
        taut.optimize(network(), torch.randn(16, 3, 16, 16), recipe=tmp_path / "none.yaml")


def test_ctrl_c_keeps_what_was_measured(
    data: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = searching.compare

    def stopped(baseline: Arm, candidate: Arm, **keywords: Any) -> object:
        if candidate.name == "result":  # the proof, which comes last whatever the budget allowed before it
            raise KeyboardInterrupt
        return real(baseline, candidate, **keywords)

    monkeypatch.setattr(searching, "compare", stopped)
    with pytest.raises(Interrupted) as caught:
        taut.optimize(
            network(), torch.randn(16, 3, 16, 16), data=data, max_drop="5%", budget=3, out=tmp_path / "part.taut",
            only=("fold_batch_norm",),
        )  # fmt: skip
    assert "part.taut" in str(caught.value)
    report = load(tmp_path / "part.taut").report
    assert report.status == "partial"
    assert report.baselines
    assert report.headline is None


def test_ctrl_c_before_anything_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("taut.optimize._work.collect", stop)
    with pytest.raises(Interrupted, match="before anything"):
        taut.optimize(network(), torch.randn(16, 3, 16, 16), out=tmp_path / "part.taut")
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_named(data: dict[str, object]) -> None:
    example = torch.randn(16, 3, 16, 16)
    for keywords, word in [
        ({"goal": "speed"}, "--goal"),
        ({"max_drop": "lots"}, "--max-drop"),
        ({"budget": -1}, "--budget"),
        ({"only": ("fold_everything",)}, "--only"),
        ({"only": ("bfloat16",), "skip": ("bfloat16",)}, "--skip"),
        ({"peers": ("tensorrt",)}, "--peer"),
        ({"metric": "f2", "data": data}, "--metric"),
    ]:
        with pytest.raises(ArgumentError, match=word):
            taut.optimize(network(), example, **keywords)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="example_inputs"):
        taut.optimize(network())
    with pytest.raises(ArgumentError, match="model"):
        taut.optimize(42, example)  # pyright: ignore[reportArgumentType]


def test_data_that_does_not_fit(data: dict[str, object]) -> None:
    example = torch.randn(16, 3, 16, 16)
    poisoned = torch.randn(32, 3, 16, 16)
    poisoned[7, 0, 0, 0] = float("nan")
    for bad, word in [
        ({"inputs": (torch.randn(32, 3, 16),)}, "shape"),
        ({"inputs": (torch.randn(32, 1, 16, 16),)}, "shape"),
        ({"inputs": (poisoned,)}, "sample 7"),
    ]:
        with pytest.raises(DataError, match=word):
            taut.optimize(network(), example, data=bad)
    with pytest.raises(DataError, match="labels"):
        taut.optimize(network(), example, metric="accuracy")


def test_a_model_that_does_not_export_is_explained() -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x + 1
            return x - 1

    with pytest.raises(ExportError) as caught:
        taut.optimize(Branches(), torch.randn(4, 4))
    assert "test_job.py" in str(caught.value)
    assert "torch.cond" in str(caught.value)


@pytest.mark.slow  # compiles C++
@pytest.mark.filterwarnings("default")
def test_torch_compile_is_measured_beside_and_never_kept(data: dict[str, object]) -> None:
    result = taut.optimize(
        network(),
        torch.randn(16, 3, 16, 16),
        data=data,
        metric="accuracy",
        max_drop="5%",
        budget=4,
        only=("threads",),
        peers=("torch_compile",),
    )
    peer = next(one for one in result.report.candidates if one.name == "torch_compile")
    assert peer.status == "peer"
    assert peer.comparison is not None, peer.reason
    assert peer.quality is not None
    assert result.report.recipe.steps == ()


def test_the_users_model_is_left_as_it_was() -> None:
    model = network().train()
    threads = torch.get_num_threads()
    taut.optimize(model, torch.randn(16, 3, 16, 16), budget=1, only=("fold_batch_norm",))
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.get_num_threads() == threads


def test_a_dry_run_only_predicts(tmp_path: Path) -> None:
    plan = dry_run(network().train(), torch.randn(16, 3, 16, 16), peers=("torch_compile",))
    assert {trial.name for trial in plan} == {*technique_names(), "torch_compile"}
    assert any(trial.predicted for trial in plan)
    assert all(trial.comparison is None for trial in plan)


@pytest.mark.parametrize(
    ("keywords", "word"),
    [
        ({"goal": "speed"}, "--goal"),
        ({"max_drop": "lots"}, "--max-drop"),
        ({"budget": -1}, "--budget"),
        ({"peers": ("tensorrt",)}, "--peer"),
        ({"metric": "f2"}, "--metric"),
        ({"metric": "accuracy"}, "labels"),
    ],
)
def test_a_dry_run_refuses_what_the_job_refuses(keywords: dict[str, Any], word: str) -> None:
    with pytest.raises((ArgumentError, DataError), match=word):
        dry_run(network(), torch.randn(16, 3, 16, 16), **keywords)


def test_a_model_that_cannot_run_on_its_example_is_told_from_a_refused_export(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ModelLoadError, match=r"raised RuntimeError on its example inputs \(\(4, 9\)\)"):
        taut.optimize(torch.nn.Linear(8, 3), torch.randn(4, 9), budget=1)
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(DataError, match="at least one sample"):
        taut.optimize(torch.nn.Linear(8, 3), torch.randn(0, 8), budget=1)


@pytest.mark.parametrize(
    ("moment", "status"),
    [("taut.optimize._outcome._profile", "partial"), ("taut.optimize._work.write_bundle", "complete")],
)
def test_ctrl_c_after_the_search_loses_nothing(
    moment: str, status: str, monkeypatch: pytest.MonkeyPatch, data: dict[str, object], tmp_path: Path
) -> None:
    module, _, name = moment.rpartition(".")
    real = getattr(sys.modules[module], name)

    def stopped_once(*arguments: Any, **keywords: Any) -> Any:
        monkeypatch.setattr(moment, real)
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **keywords)

    monkeypatch.setattr(moment, stopped_once)
    path = tmp_path / "net.taut"
    with pytest.raises(Interrupted) as stop:
        taut.optimize(network(), torch.randn(16, 3, 16, 16), data=data, budget=1, only=("threads",), out=path)
    assert isinstance(stop.value.result, Result)
    assert stop.value.result.bundle == path
    assert load(path).report.status == status
    assert [item.name for item in tmp_path.iterdir()] == ["net.taut"]


@pytest.mark.slow  # calibrates this host
def test_a_cache_that_cannot_be_written_costs_only_its_peaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from taut.cost import calibrate
    from taut.optimize import _planner

    monkeypatch.setattr(_planner, "calibrate", calibrate)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "file" / "cache"))
    plan = dry_run(network(), torch.randn(16, 3, 16, 16), only=("fold_batch_norm",))
    assert any(trial.predicted for trial in plan)
