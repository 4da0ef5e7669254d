"""`taut compile` and `taut inspect` of what it wrote, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.usefixtures("made_up_peaks"),
    pytest.mark.skipif(find_spec("halide") is None, reason="the extra compile is not installed"),
]

FACTORY = """
import torch

class Scorer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(8, 32), torch.nn.Linear(32, 4)

    def forward(self, x, scale):
        return torch.sort(self.outer(torch.relu(self.inner(x))) * scale)[0]

def model():
    torch.manual_seed(0)
    return Scorer().eval(), (torch.randn(3, 5, 8), torch.ones(4))

def bare():
    return Scorer().eval()

def data():
    return {"inputs": (torch.randn(6, 5, 8), torch.ones(6, 1, 4))}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def made_up_peaks(made_up_host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from taut import cost
    from taut.optimize import _planner

    monkeypatch.setattr(cost, "calibrate", _planner.calibrate)


@pytest.fixture
def run(in_folder: Run, tmp_path: Path) -> Run:
    (tmp_path / "mine.py").write_text(FACTORY)
    return in_folder


def test_compile_then_inspect(run: Run, tmp_path: Path) -> None:
    code, out, err = run("compile", "mine.py:model", "--dynamic", "x:0", "--dynamic", "x:1:1-64", "--json", "c.json")
    assert code == 0, err
    assert "on ATen: aten.sort.default (1)" in out
    assert "no machine code" in out
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["fallbacks"] == {"aten.sort.default": 1}
    assert written["kernels"] == 2
    assert set(written["bytes"]) == {"program.json", "program.safetensors"}
    code, out, err = run("inspect", "mine.taut", "--bytecode", "--json", "i.json")
    assert code == 0, err
    for words in ("linear", "x=3x5x8", "arena:", "constants:", "on ATen: aten.sort.default (1)", "RETURN"):
        assert words in out
    found = json.loads((tmp_path / "i.json").read_text())
    assert [step["kind"] for step in found["steps"]] == ["generated", "generated", "aten"]
    assert found["steps"][0]["shapes"][0] == [15, 8]
    code, out, err = run("inspect", "mine.taut", "--shape", "2x64x8", "--shape", "4", "--top", "1")
    assert code == 0, err
    assert "x=2x64x8" in out
    assert "2 faster steps" in out
    code, out, err = run("inspect", "mine.taut", "--shape", "2x65x8", "--shape", "4")
    assert code == 3
    assert "65" in err
    code, _, err = run("run", "mine.taut")
    assert code == 5
    assert "taut.compile.load" in err
    code, out, err = run("compile", "mine.py:model")
    assert code == 0, err
    assert "mine-2.taut" in out
    code, out, err = run("compile", "mine.py:model", "--out", "mine.taut")
    assert code == 2
    assert "--force" in err
    code, out, err = run("compile", "mine.py:model", "-o", "mine.taut", "--force", "--dynamic", "none", "--json", "-")
    assert code == 0, err
    assert json.loads(out)["inputs"]["x"] == ["3", "5", "8"]


@pytest.mark.parametrize("given", [["--shape", "6x5x8", "--shape", "4"], ["--data", "mine.py:data"]])
def test_example_inputs_come_from_shapes_or_data(run: Run, tmp_path: Path, given: list[str]) -> None:
    code, _, err = run("compile", "mine.py:bare", *given)
    assert code == 0, err
    assert json.loads((tmp_path / "mine.taut" / "program.json").read_text())["format"] == "taut.program"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["compile", "mine.py:bare"], 2, "--shape"),
        (["compile", "mine.py:model", "--dynamic", "x"], 2, "INPUT:DIM"),
        (["compile", "mine.py:model", "--dynamic", "y:0"], 2, "x, scale"),
        (["compile", "mine.py:model", "--dynamic", "x:3"], 2, "3 dimensions"),
        (["compile", "mine.py:model", "--dynamic", "x:0:9-2"], 2, "MIN"),
        (["compile", "mine.py:model", "--data", "mine.py:data", "--shape", "1"], 2, "--data"),
        (["compile", "mine.py:model", "--out", "no/such/p.taut"], 6, "no such folder"),
        (["compile", "mine.py:model", "--out", "mine.py", "--force"], 2, "compiled program to replace"),
        (["compile", "none.py:model"], 3, "no file"),
        (["inspect", "."], 5, "program.json"),
        (["inspect", "mine.py:model", "--bytecode"], 2, "taut compile"),
        (["inspect", ".", "--threads", "2"], 2, "calling thread"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(run: Run, arguments: list[str], code: int, word: str) -> None:
    got, out, err = run(*arguments)
    assert got == code, err
    assert word in err
    assert "Traceback" not in out + err


def test_a_program_that_was_damaged_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("compile", "mine.py:model")[0] == 0
    document = tmp_path / "mine.taut" / "program.json"
    document.write_text(document.read_text().replace('"registers":', '"registers": 1'))
    code, _, err = run("inspect", "mine.taut")
    assert code == 5, err
