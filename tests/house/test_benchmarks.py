"""Every benchmark explains itself."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_is_printed(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("taut", "benchmarks", "examples"):
            raise
        pytest.skip(f"{error.name}, which this benchmark compares with, is not installed")
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert shown.startswith("usage:")
    assert "--json" in shown
    assert (torch.get_num_threads(), state.tolist()) == (threads, torch.get_rng_state().tolist())
