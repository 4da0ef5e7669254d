"""`taut export` as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import taut

pytestmark = pytest.mark.usefixtures("made_up_host")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, made_up_host: None) -> Path:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    path = tmp_path_factory.mktemp("bundles") / "mine.taut"
    taut.optimize(network, torch.randn(4, 8), budget=1, only=("fuse_linear",), out=path)
    return path


@pytest.fixture
def run(in_folder: Run) -> Run:
    return in_folder


def test_a_bundle_becomes_a_model_that_computes_the_same(run: Run, bundle: Path, tmp_path: Path) -> None:
    import onnxruntime

    code, out, err = run("export", str(bundle), "--onnx", "mine.onnx")
    assert code == 0, err
    assert out == f"mine.onnx: {(tmp_path / 'mine.onnx').stat().st_size:,} bytes\n"
    session = onnxruntime.InferenceSession("mine.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(3, 8)
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(made), taut.load(bundle)(x))


def test_a_file_that_is_there_stays_unless_forced(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_text("mine")
    code, _, err = run("export", str(bundle), "--onnx", "mine.onnx")
    assert code == 2
    assert "--onnx" in err and "--force" in err
    assert (tmp_path / "mine.onnx").read_text() == "mine"
    assert run("export", str(bundle), "--onnx", "mine.onnx", "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("{bundle}", "--onnx", "mine.pt"), 2, "ending in .onnx"),
        (("nowhere.taut", "--onnx", "mine.onnx"), 5, "nowhere.taut"),
        (("{bundle}", "--onnx", "nowhere/mine.onnx"), 6, "no such folder"),
    ],
)
def test_mistakes(run: Run, bundle: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    found, _, err = run("export", *(part.format(bundle=bundle) for part in arguments))
    assert (found, words in err) == (code, True), err
    assert list(tmp_path.iterdir()) == []
