"""`taut quantize` and `taut formats` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from taut.numerics import FORMATS, SCHEMES

pytestmark = pytest.mark.usefixtures("made_up_host")

FACTORY = """
import torch

def model():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16)).eval()
    return net, (torch.randn(16, 32),)

def data():
    torch.manual_seed(1)
    inputs = torch.randn(64, 32)
    return {"inputs": (inputs,), "labels": model()[0](inputs).argmax(1)}

def poisoned():
    net, example = model()
    with torch.no_grad():
        net[0].weight[3, 5] = float("nan")
    return net, example

def flat():
    return {"inputs": (torch.zeros(64, 31),)}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(in_folder: Run, tmp_path: Path) -> Run:
    (tmp_path / "mine.py").write_text(FACTORY)
    return in_folder


def test_quantize_writes_a_bundle_that_runs_and_replays(run: Run, tmp_path: Path) -> None:
    code, out, err = run("quantize", "mine.py:model", "--data", "mine.py:data", "--format", "vsq4-v16-s4", "--budget",
                         "1", "--max-drop", "50%", "--layer", "2=int8-channel", "--json", "q.json")  # fmt: skip
    assert code == 0, err
    assert "size: 12,608 -> " in out
    assert "of the original" in out
    assert "2 of 2 layers have no kernel and are emulated" in out
    report = json.loads((tmp_path / "q.json").read_text())
    assert [(row["path"], row["format"]) for row in report["layers"]] == [("0", "vsq4-v16-s4"), ("2", "int8-channel")]
    assert "--goal size" in report["recipe"]["command"]
    code, out, err = run("run", "mine.taut", "--data", "mine.py:data", "--metric", "accuracy")
    assert code == 0, err
    assert "accuracy:" in out
    command = report["recipe"]["command"].replace("recipe.yaml", "mine.taut").split()[1:]
    code, out, err = run(*command, "--budget", "1", "--out", "again.taut")
    assert code == 0, err
    assert (tmp_path / "again.taut" / "recipe.yaml").read_text() == (tmp_path / "mine.taut" / "recipe.yaml").read_text()


def test_a_mix_under_a_budget_shows_what_each_layer_loses(run: Run) -> None:
    code, out, err = run("quantize", "mine.py:model", "--data", "mine.py:data", "--max-bits", "7.5", "--budget", "1",
                         "--max-drop", "50%", "--format", "vsq4-v16-s4,int8-channel",
                         "--calibrate", "mine.py:data")  # fmt: skip
    assert code == 0, err
    assert "error" in out
    assert "measuring sensitivity" in err
    assert "calibrating: " in err
    assert "kept: quantise (by layer) of weights that were calibrated" in out
    assert "may flatter the result" in " ".join(out.split())
    code, _, err = run("optimize", "mine.py:model", "--recipe", "mine.taut", "--out", "again.taut")
    assert code == 2
    assert "the bundle itself" in err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["mine.py:model", "--format", "vsq-w4a4-v61-s99"], 2, "did you mean"),
        (["mine.py:model", "--format", "vqs-w4a8-v16"], 2, "vsq-w4a8-v16"),
        (["mine.py:model", "--format", "mxfp4", "--layer", "2"], 2, "PATH=SCHEME"),
        (["mine.py:model", "--format", "mxfp4", "--layer", "2=a", "--layer", "2=b"], 2, "once"),
        (["mine.py:model", "--format", "mxfp4", "--layer", "head=q4_0"], 2, "head"),
        (["mine.py:model", "--format", "mxfp4", "--layer", "0=nvpf4"], 2, "nvfp4"),
        (["mine.py:model", "--format", "mxfp4", "--skip", "0", "--skip", "2"], 4, "nothing"),
        (["mine.py:model", "--format", "mxfp4", "--skip", "head"], 2, "head"),
        (["mine.py:model", "--format", "mxfp4", "--max-bits", "5"], 2, "--data"),
        (["mine.py:model", "--data", "mine.py:data", "--format", "q4_0", "--max-bytes", "9"], 2, "at least"),
        (["mine.py:model", "--max-bytes", "much"], 2, "--max-bytes"),
        (["mine.py:model", "--fine-tune", "5"], 2, "--calibrate"),
        (["mine.py:model", "--calibrate", "mine.py:flat"], 4, "shape"),
        (["mine.py:poisoned", "--format", "q4_0"], 4, "0.weight"),
        (["mine.py:model", "--data", "mine.py:flat", "--format", "q4_0"], 4, "shape"),
        (["mine.py:model", "--data", "mine.py:data", "--format", "int2-channel", "--max-drop", "0"], 4, "--max-drop"),
        (["none.py:model"], 3, "no file"),
        (["mine.py:model", "--out", "no/such/folder.taut"], 6, "no such folder"),
        (["mine.py:model", "--json", "mine.py"], 2, "--json"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(
    run: Run, tmp_path: Path, arguments: list[str], code: int, word: str
) -> None:
    got, out, err = run("quantize", *arguments, "--budget", "1")
    assert got == code, err
    assert word in err
    assert "\nerror: " in "\n" + err
    assert "Traceback" not in out + err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["mine.py"]


def test_formats_lists_every_scheme_and_format(run: Run) -> None:
    code, out, err = run("formats", "--json", "-")
    assert code == 0, err
    document = json.loads(out)
    assert [one["name"] for one in document["schemes"]] == list(SCHEMES)
    assert {one["name"]: one["bits_per_weight"] for one in document["formats"]} == {
        name: one.nominal_bits for name, one in FORMATS.items()
    }
    assert all(one["example"]["bytes"] * 8 / 1024**2 == one["example"]["bits"] for one in document["formats"])
    kernels = {one["name"]: one["kernels"] for one in document["schemes"]}
    assert kernels["vsq-w4a8-v16"] == ["linear", "convolution"]
    assert kernels["vsq-w3a8-v16"] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vsq-w4a8-v16", ["4.25 bits", "-7 to 7", "one a row", "linear layers and convolution layers", "--format"]),
        ("vsq-w5a8-v32-s6", ["5.1875 bits", "emulated"]),
        ("nvfp4", ["E2M1", "e4m3", "activations: floating point"]),
        ("uint4-channel", ["zero point"]),
    ],
)
def test_formats_explains_one(run: Run, name: str, words: list[str]) -> None:
    code, out, err = run("formats", name)
    assert code == 0, err
    assert [word for word in words if word not in out] == []


def test_formats_says_what_a_misspelt_name_may_mean(run: Run) -> None:
    code, _, err = run("formats", "nvpf4\x1b[31m")
    assert code == 2
    assert "nvfp4" in err
    assert "\x1b" not in err
