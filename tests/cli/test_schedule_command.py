"""`taut schedule` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(find_spec("halide") is None, reason="the extra compile is not installed")

FACTORY = """
import torch

class Branches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three = torch.nn.Conv2d(8, 16, 1), torch.nn.Conv2d(8, 16, 3, padding=1)

    def forward(self, x):
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)

def model():
    torch.manual_seed(0)
    return Branches().eval(), (torch.randn(1, 8, 6, 6),)

def bare():
    return Branches().eval()

def scalar():
    return Branches().eval(), (torch.tensor(1.0),)

def data():
    return {"inputs": (torch.randn(6, 8, 6, 6),)}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(in_folder: Run, tmp_path: Path) -> Run:
    (tmp_path / "mine.py").write_text(FACTORY)
    return in_folder


def test_schedule_prints_writes_and_can_be_inspected(run: Run, tmp_path: Path) -> None:
    files = ["--html", "s.html", "--trace", "t.json", "--json", "s.json", "-o", "mine.taut"]
    code, out, err = run("schedule", "mine.py:model", "--budget", "1", *files)
    assert code == 0, err
    for words in ("strategy", "predicted", "measured", "kept: ", "the gap to it", "stages measured"):
        assert words in out
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["kept"] in {one["name"] for one in written["candidates"]}
    assert written["program"] == "mine.taut"
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    assert (tmp_path / "s.html").read_text().startswith("<!doctype html>")
    program = json.loads((tmp_path / "mine.taut" / "program.json").read_text())
    assert "schedule" in program["program"]["notes"]
    code, out, err = run("schedule", "mine.py:model", "--budget", "1", "--html", "s.html")
    assert code == 2
    assert "--html" in err
    code, out, err = run("schedule", "mine.py:model", "--budget", "1", "-o", "mine.taut")
    assert code == 2
    assert "--force" in err


def test_streams_of_a_gpu_are_told_like_workers(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taut import compile as room
    from taut.compile import scheduling

    def on_the_cpu(*arguments: Any, device: str, **options: Any) -> scheduling.StreamedModel:
        assert device == "cuda"
        return scheduling.schedule_streams(*arguments, device="cpu", **options)

    monkeypatch.setattr(scheduling, "CudaStreams", lambda device: None)
    monkeypatch.setattr(room, "schedule_streams", on_the_cpu)
    files = ["--html", "s.html", "--trace", "t.json", "--json", "s.json"]
    code, out, err = run("schedule", "mine.py:model", "--device", "cuda", "--workers", "2", "--budget", "1", *files)
    assert code == 0, err
    assert "2 streams of cpu" in out
    assert json.loads((tmp_path / "s.json").read_text())["lane"] == "stream"
    assert (tmp_path / "s.html").read_text().startswith("<!doctype html>")
    code, out, err = run("schedule", "mine.py:model", "--device", "cuda", "-o", "mine.taut")
    assert code == 2
    assert "--out" in err
    assert "schedule_streams" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta", "no device"])
def test_without_a_gpu_a_sentence_says_what_to_do(run: Run, device: str) -> None:
    code, out, err = run("schedule", "mine.py:model", "--device", device)
    assert code == 2
    assert "--device" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("given", [["--shape", "3x8x6x6"], ["--data", "mine.py:data", "--batch", "3"]])
def test_the_batch_comes_from_shapes_or_data(run: Run, tmp_path: Path, given: list[str]) -> None:
    code, out, err = run("schedule", "mine.py:bare", *given, "--budget", "1", "--exact", "--json", "-")
    assert code == 0, err
    assert json.loads(out)["workers"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["mine.py:bare"], 2, "--shape"),
        (["mine.py:model", "--data", "mine.py:data", "--shape", "1"], 2, "--data"),
        (["mine.py:model", "--html", "same", "--trace", "same"], 2, "--trace"),
        (["mine.py:model", "--budget", "0"], 2, "budget"),
        (["mine.py:scalar", "--batch", "2"], 2, "--batch"),
        (["mine.py:model", "-o", "no/such/p.taut"], 6, "no such folder"),
        (["none.py:model"], 3, "no file"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(run: Run, arguments: list[str], code: int, word: str) -> None:
    got, out, err = run("schedule", *arguments)
    assert got == code, err
    assert word in err
    assert "Traceback" not in out + err
