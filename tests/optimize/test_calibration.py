"""Quantisation prepared with data: what the bundle then holds, what is said of it, and what Ctrl-C keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import taut
from taut.errors import ArgumentError, DataError, Interrupted
from taut.graph import Interpreter, capture
from taut.optimize import Result, load
from taut.optimize._calibration import uncalibrated
from taut.optimize._recipe import read_recipe
from taut.transform import calibrate, get_pass

pytestmark = pytest.mark.usefixtures("made_up_host")

SCHEME = "vsq-w4a8-v16"


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU(), torch.nn.Linear(48, 16)).eval()


def samples(seed: int, count: int = 64) -> torch.Tensor:
    """Correlated features, of which one is thirty times the others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(32, 32, generator=torch.Generator().manual_seed(9))
    x = torch.randn(count, 32, generator=generator) @ mixing / 6
    x[:, 5] *= 30
    return x


def given(seed: int) -> dict[str, Any]:
    return {"inputs": (samples(seed),)}


def quantize(**wanted: Any) -> Result:
    keywords: dict[str, Any] = {"data": given(1), "calibration": given(2), "max_drop": "50%", "budget": 1}
    return taut.quantize(network(), (samples(0, 16),), format=wanted.pop("format", SCHEME), **{**keywords, **wanted})


@pytest.fixture(scope="module")
def result(made_up_host: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return quantize(out=tmp_path_factory.mktemp("calibrated") / "net.taut")


@pytest.fixture(scope="module")
def plain(made_up_host: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return quantize(calibration=None, out=tmp_path_factory.mktemp("plain") / "net.taut")


def error(made: Result, inputs: torch.Tensor) -> float:
    with torch.inference_mode():
        want = network()(inputs)
    return float((made(inputs) - want).square().sum() / want.square().sum())


def test_calibration_brings_unseen_outputs_closer(result: Result, plain: Result) -> None:
    unseen = samples(3)
    assert error(result, unseen) < error(plain, unseen) / 1.5


def test_the_bundle_holds_the_calibrated_weights_and_says_so(result: Result) -> None:
    assert result.bundle is not None
    again = load(result.bundle)
    assert torch.equal(again(samples(3)), result(samples(3)))
    assert again.recipe.prepared == ("calibrated",)
    assert result.report.recipe.prepared == ("calibrated",)
    assert result.report.recipe.command is None
    assert "the bundle holds its weights" in (result.bundle / "report.html").read_text()


def test_its_recipe_is_not_replayed_on_the_model(result: Result) -> None:
    assert result.bundle is not None
    with pytest.raises(ArgumentError, match="--recipe") as refusal:
        taut.optimize(network(), (samples(0, 16),), recipe=result.bundle)
    assert "calibrated" in str(refusal.value)
    assert "taut run" in str(refusal.value)


def test_what_is_not_calibrated_replays_and_suggests_calibration(result: Result, plain: Result) -> None:
    assert plain.bundle is not None
    assert read_recipe(plain.bundle).prepared == ()
    assert "prepared" not in (plain.bundle / "recipe.yaml").read_text()
    assert any("--calibrate" in warning and "2 layer(s)" in warning for warning in plain.report.warnings)
    assert not any("--calibrate" in warning for warning in result.report.warnings)
    assert not any(
        "--calibrate" in warning for warning in quantize(calibration=None, format="poc-w8a8").report.warnings
    )


def test_eight_bits_and_formats_that_calibration_does_not_serve_get_no_note() -> None:
    graph = capture(network(), (samples(0, 16),))
    assert uncalibrated(graph, {"scheme": SCHEME}) is not None
    assert uncalibrated(graph, {"scheme": "poc-w8a8"}) is None
    assert uncalibrated(graph, {"scheme": "mxfp4"}) is None
    assert uncalibrated(graph, {"scheme": SCHEME, "skip": ["0", "2"]}) is None


def test_the_error_of_an_equalised_weight_is_that_of_the_weight(result: Result, plain: Result) -> None:
    """Calibration gives up some of the weight's own precision for that of the outputs, but not its scale."""
    for calibrated, bare in zip(result.report.layers, plain.report.layers, strict=True):
        assert calibrated.format == bare.format == "vsq4-v16-s4"
        assert calibrated.sqnr_db is not None
        assert bare.sqnr_db is not None
        assert bare.sqnr_db - 12 < calibrated.sqnr_db < bare.sqnr_db
    emulated = quantize(format="vsq-w4a8-v32-s4").report.layers[0]
    assert emulated.runs == "emulated"
    assert emulated.sqnr_db is not None
    assert emulated.sqnr_db > 12


def test_calibrating_on_the_scored_samples_is_said() -> None:
    warnings = quantize(calibration=given(1)).report.warnings
    assert any("may flatter the result" in warning and "4 of 4" in warning for warning in warnings)


def test_a_mix_is_chosen_and_calibrated_on_the_calibration_data() -> None:
    made = quantize(format=(SCHEME, "poc-w8a8"), max_bits=9, data=None)
    assert {row.format for row in made.report.layers} == {"vsq4-v16-s4", "int8-channel"}
    assert made.session.recipe.prepared == ("calibrated",)
    assert not any("labels were not used" in warning for warning in made.report.warnings)


def test_fine_tuning_serves_formats_that_calibration_does_not() -> None:
    made = quantize(fine_tune=20, format="mxfp4")
    assert made.session.recipe.prepared == ("fine-tuned",)
    assert error(made, samples(3)) < error(quantize(calibration=None, format="mxfp4"), samples(3)) / 1.2


def test_fine_tuning_that_does_not_help_is_dropped_and_said() -> None:
    made = quantize(fine_tune=1)
    assert made.session.recipe.prepared == ("calibrated",)
    assert any("Fine-tuning" in warning for warning in made.report.warnings)


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        ({"calibration": None, "fine_tune": 5}, ArgumentError, ["--fine-tune", "--calibrate"]),
        ({"fine_tune": -1}, ArgumentError, ["--fine-tune"]),
        ({"calibration": "nowhere.npz"}, DataError, ["nowhere.npz", "--calibrate"]),
        ({"calibration": "nowhere"}, ArgumentError, ["--calibrate"]),
        ({"calibration": {"inputs": (torch.zeros(16, 31),)}}, DataError, ["shape"]),
        ({"calibration": {"inputs": (torch.full((16, 32), torch.nan),)}}, DataError, ["NaN"]),
        ({"format": "mxfp4"}, ArgumentError, ["mxfp4", "without calibration"]),
    ],
)
def test_what_cannot_be_calibrated_is_named(wanted: dict[str, Any], kind: type[Exception], words: list[str]) -> None:
    with pytest.raises(kind) as refusal:
        quantize(**wanted)
    assert [word for word in words if word not in str(refusal.value)] == []


@pytest.mark.parametrize(("stage", "kept"), [("rounding", None), ("fine-tuning", ("calibrated",))])
def test_ctrl_c_keeps_the_stage_before(tmp_path: Path, stage: str, kept: tuple[str, ...] | None) -> None:
    def stop(doing: str, _share: float) -> None:
        if stage in doing:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=stage):
        quantize(fine_tune=5, progress=stop, out=tmp_path / "net.taut")
    if kept is None:
        assert list(tmp_path.iterdir()) == []
        return
    session = load(tmp_path / "net.taut")
    assert session.report.status == "partial"
    assert session.recipe.prepared == kept


def test_an_interrupted_sensitivity_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path))
    wanted: dict[str, Any] = {"format": (SCHEME, "poc-w8a8"), "max_bits": 9}
    measured: list[str] = []

    def stop(doing: str, _share: float) -> None:
        if "sensitivity" in doing:
            measured.append(doing)
            if len(measured) == 3:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped after 2 of 4") as stopped:
        quantize(**wanted, progress=stop)
    assert "same command" in str(stopped.value)
    from taut.transform.quantisation import _sensitivity

    calls: list[object] = []
    inner = _sensitivity.relative_error
    monkeypatch.setattr(_sensitivity, "relative_error", lambda *given: calls.append(given) or inner(*given))
    first = quantize(**wanted)
    assert len(calls) == 2
    assert all(row.error is not None for row in first.report.layers)
    quantize(**wanted, calibration=given(7))  # other data, nothing of it is known
    assert len(calls) == 6


def test_a_cache_that_cannot_be_used_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "file"))
    assert quantize(format=(SCHEME, "poc-w8a8"), max_bits=9).report.layers


def test_the_codes_are_those_of_the_calibrated_graph(result: Result) -> None:
    graph = capture(network(), (samples(0, 16),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    batches = [(part,) for part in samples(2).split(16)]
    wanted = get_pass("quantise").apply(calibrate(graph, batches, SCHEME), scheme=SCHEME).graph
    assert torch.equal(Interpreter(wanted)(samples(3)), result(samples(3)))
