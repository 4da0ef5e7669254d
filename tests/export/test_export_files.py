"""Files are written whole or not at all, and nothing of the user's is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx_runs import leaves, run, session

from architectures import captured, example
from taut.errors import ArgumentError, MissingExtraError, StorageError
from taut.export import _file, export_onnx
from taut.graph import Interpreter


def test_the_model_is_checked_and_says_who_made_it(tmp_path: Path) -> None:
    assert export_onnx(captured("mlp"), tmp_path / "mlp.onnx") == (tmp_path / "mlp.onnx",)
    model = onnx.load(tmp_path / "mlp.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "taut"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export_onnx(captured("encoder"), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "mlp.onnx"
    path.write_text("mine")
    with pytest.raises(ArgumentError, match="path"):
        export_onnx(captured("mlp"), path)
    assert path.read_text() == "mine"
    export_onnx(captured("mlp"), path, force=True)
    assert onnx.load(path).producer_name == "taut"


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"model\.pt"):
        export_onnx(captured("mlp"), tmp_path / "model.pt")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such folder"):
        export_onnx(captured("mlp"), tmp_path / "nowhere" / "model.onnx")


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlp.onnx"
    path.write_text("mine")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", fail)
    with pytest.raises(StorageError, match="No space left"):
        export_onnx(captured("mlp"), path, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["mlp.onnx"]
    assert path.read_text() == "mine"


def test_tensors_beyond_the_limit_of_a_file_go_to_a_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file, "_LARGEST_FILE", 1000)
    graph, inputs = captured("encoder"), example("encoder")
    path, data = export_onnx(graph, tmp_path / "encoder.onnx")
    assert data == tmp_path / "encoder.onnx.data"
    inside = onnx.load(path, load_external_data=False).graph.initializer
    assert max(len(tensor.raw_data) for tensor in inside) < 1024 < data.stat().st_size
    torch.testing.assert_close(run(session(path), *leaves(inputs)), leaves(Interpreter(graph)(*inputs)))


def test_a_second_file_that_is_there_stays_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file, "_LARGEST_FILE", 1000)
    (tmp_path / "encoder.onnx.data").write_text("mine")
    with pytest.raises(ArgumentError, match=r"encoder\.onnx\.data"):
        export_onnx(captured("encoder"), tmp_path / "encoder.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.onnx.data"]
    export_onnx(captured("encoder"), tmp_path / "encoder.onnx", force=True)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match="onnx") as caught:
        export_onnx(captured("mlp"), tmp_path / "mlp.onnx")
    assert "taut[onnx]" in str(caught.value.fix)
