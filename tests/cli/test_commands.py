"""The commands as a user types them: results, exit codes, never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("made_up_host")

FACTORY = """
import torch

def model():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 256), torch.nn.ReLU(), torch.nn.Linear(256, 4)).eval()
    return net, (torch.randn(16, 8),)

def data():
    torch.manual_seed(1)
    return {"inputs": (torch.randn(64, 8),), "labels": torch.randint(0, 4, (64,))}

def crashes():
    raise RuntimeError("no weights here")

def poisoned():
    return {"inputs": (torch.full((64, 8), float("nan")),), "labels": torch.zeros(64, dtype=torch.long)}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(in_folder: Run, tmp_path: Path) -> Run:
    (tmp_path / "mine.py").write_text(FACTORY)
    return in_folder


def test_optimize_run_and_report(run: Run, tmp_path: Path) -> None:
    code, out, err = run("optimize", "mine.py:model", "--data", "mine.py:data", "--budget", "2", "--json", "r.json",
                         "--max-drop", "50%", "--only", "int8_linear,threads")  # fmt: skip
    assert code == 0, err
    assert "kept:" in out
    assert "mine.taut" in out
    assert json.loads((tmp_path / "r.json").read_text())["status"] == "complete"
    code, out, err = run("run", "mine.taut", "--data", "mine.py:data", "--metric", "accuracy", "--output", "o.npz")
    assert code == 0, err
    assert "accuracy:" in out
    assert np.load(tmp_path / "o.npz")["output_0"].shape == (32, 4)
    code, out, err = run("run", "mine.taut")
    assert code == 0, err
    code, out, err = run("report", "mine.taut", "--output", "page.html", "--json", "-")
    assert code == 0, err
    assert json.loads(out)["model"]["name"] == "mine"
    assert (tmp_path / "page.html").read_text().startswith("<!")
    code, out, err = run("optimize", "mine.py:model", "--out", "mine.taut")
    assert code == 2
    assert "--force" in err
    manifest = tmp_path / "mine.taut" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    code, out, err = run("run", "mine.taut")
    assert code == 5
    assert "newer" in err or "upgrade" in err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["optimize", "none.py:model"], 3, "no file"),
        (["optimize", "mine.py:crashes"], 3, "no weights here"),
        (["optimize", "mine.py"], 2, "MODEL"),
        (["optimize", "mine.py:model", "--data", "mine.py:poisoned"], 4, "NaN"),
        (["optimize", "mine.py:model", "--data", "none.npz"], 4, "no such file"),
        (["optimize", "mine.py:model", "--metric", "accuracy"], 4, "labels"),
        (["optimize", "mine.py:model", "--metric", "best"], 2, "--metric"),
        (["optimize", "mine.py:model", "--goal", "speed"], 2, "--goal"),
        (["optimize", "mine.py:model", "--target", "tpu"], 2, "--target"),
        (["optimize", "mine.py:model", "--budget", "0"], 2, "--budget"),
        (["optimize", "mine.py:model", "--only", "magic"], 2, "--only"),
        (["optimize", "mine.py:model", "--recipe", "none.yaml"], 5, "none.yaml"),
        (["optimize", "mine.py:model", "--recipe", "r.yaml", "--dry-run"], 2, "--recipe"),
        (["optimize", "mine.py:model", "--peer", "tensorrt", "--dry-run"], 2, "--peer"),
        (["optimize", "mine.py:model", "--out", "no/such/folder.taut"], 6, "no such folder"),
        (["optimize", "mine.py:model", "--json", "mine.py"], 2, "--json"),
        (["run", "none.taut"], 5, "no such bundle"),
        (["run", "."], 5, "manifest"),
        (["report", "mine.py"], 5, "no such bundle"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(run: Run, arguments: list[str], code: int, word: str) -> None:
    got, out, err = run(*arguments)
    assert got == code, err
    assert word in err
    assert "\nerror: " in "\n" + err
    assert "Traceback" not in out + err


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, err = run("optimize", "mine.py:model", "--dry-run")
    assert code == 0, err
    assert "int8_linear" in out
    assert "modelled" in out
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_defect_is_reported_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("taut.optimize._job.prepare", broken)
    code, out, err = run("optimize", "mine.py:model")
    assert code == 70
    assert "TAUT_DEBUG" in err
    assert "Traceback" not in out + err


@pytest.mark.slow  # starts a process and waits for its first measurements
def test_ctrl_c_writes_a_partial_report(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    command = [sys.executable, "-c", "from taut.cli import main; main()", "optimize", "mine.py:model", "--budget", "60"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "alone" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "PARTIAL" in out
    assert "Traceback" not in out + err
    assert json.loads((tmp_path / "mine.taut" / "report.json").read_text())["status"] == "partial"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["mine.py", "mine.taut"]


def test_control_characters_do_not_reach_the_terminal(run: Run) -> None:
    code, _, err = run("optimize", "mine.py:model", "--metric", "a\x1b[2J\u202eb:f")
    assert code != 0
    assert "\x1b" not in err
    assert "\u202e" not in err


def test_a_shape_too_large_for_any_machine(run: Run) -> None:
    code, _, err = run("inspect", "mine.py:model", "--shape", "9" * 23 + "x8")
    assert code == 2
    assert "--shape" in err


def test_a_recipe_with_an_endless_number(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("threads: " + "9" * 6000)
    code, _, err = run("optimize", "mine.py:model", "--recipe", "r.yaml")
    assert code == 5
    assert "r.yaml" in err
