"""`taut comm`: from a stored profile to advice; probing is in the slow tier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from taut.cli._app import app
from taut.cli._comm import duration, link_bandwidth
from taut.distributed import CANDIDATES, EncodeCost, Profile, read_profile
from taut.errors import ArgumentError, ArtefactError
from taut.hardware import FORMS, LinkModel

MODEL = """
import torch

def model():
    return torch.nn.Sequential(torch.nn.Linear(600, 600), torch.nn.Linear(600, 600)), (torch.randn(4, 600),)
"""


LAYERS = """
linear{"in_features":600,"out_features":600}[64][600]   3.000   1000   2000
sum: 3.0
linear{"in_features":600,"out_features":600}[32][600]   1.500   500   1000
sum: 1.5
"""


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    path = tmp_path / "device.prof"
    path.write_text(LAYERS)
    return path


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "network.py"
    path.write_text(MODEL)
    return f"{path}:model"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    links = LinkModel(dict.fromkeys(FORMS, np.array([[1e-5, 1e-5, 1e-10, 1.05]])), dict.fromkeys(FORMS, np.ones(1)))
    costs = {name: EncodeCost(np.array([[0.0, 1e-9, 1e-11]])) for name in CANDIDATES}
    Profile(links, costs, 1.1, None, 2).write(path)
    return path


def taut(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["comm", *(str(one) for one in arguments)], env={"COLUMNS": "200"})


def test_advice_on_a_slow_and_on_a_fast_link(model: str, profile: Path, tmp_path: Path) -> None:
    page, document = tmp_path / "page.html", tmp_path / "advice.json"
    slow = ("advise", model, "--profile", profile, "--link", "100Mbit", "--workers", "4", "--backward", "5ms")
    shown = taut(*slow, "--html", page, "--json", document)
    assert shown.exit_code == 0, shown.output
    assert "helps" in shown.output
    assert "of a gradient in its first exchange" in " ".join(shown.output.split())
    assert "(modelled)" in shown.output
    advice = json.loads(document.read_text())
    assert advice["kind"] == "modelled"
    assert advice["bandwidth_bytes_per_second"] == 100e6 / 8
    assert {one["name"] for one in advice["predictions"]} == set(CANDIDATES)
    assert "<svg" in page.read_text()
    fast = ("advise", model, "--profile", profile, "--link", "400Gbit", "--workers", "4", "--backward", "500ms")
    assert "don't compress" in taut(*fast).output


def test_json_on_standard_output_stands_alone(model: str, profile: Path) -> None:
    shown = taut(
        *("advise", model, "--profile", profile, "--link", "1Gbit", "--workers", "8"),
        *("--compressor", "sign", "--bucket", "1", "--json", "-"),
    )
    assert {one["name"] for one in json.loads(shown.stdout)["predictions"]} == {"fp32", "fp16", "sign"}


def test_advice_for_a_device_that_is_not_here(layers: Path, profile: Path, tmp_path: Path) -> None:
    page, document = tmp_path / "page.html", tmp_path / "advice.json"
    asked = ("advise", "--layers", layers, "--profile", profile, "--link", "1Gbit", "--workers", "8")
    shown = taut(*asked, "--batch", "32", "--encoder-speed", "20", "--html", page, "--json", document)
    assert shown.exit_code == 0, shown.output
    for part in ("device, batch 32", "(modelled)", "over sizes of buckets:", "linear scaling:", "overlap:"):
        assert part in shown.output
    assert "not measured here" in shown.output
    assert "20 times as fast as on the probed host" in shown.output
    advice = json.loads(document.read_text())
    assert advice["kind"] == advice["what_if"]["kind"] == "modelled"
    assert len(advice["notes"]) == 2
    assert page.read_text().count("<svg") == 6
    found = {}
    for speed in ("1", "1000"):
        shown = taut(*asked, "--batch", "64", "--encoder-speed", speed, "--json", "-")
        found[speed] = {one["name"]: one["seconds"][0] for one in json.loads(shown.stdout)["predictions"]}
    assert found["1000"]["sign"] < found["1"]["sign"]


def test_the_batch_of_a_profile_of_layers_has_to_be_one_of_the_file(layers: Path, profile: Path) -> None:
    asked = ("advise", "--layers", layers, "--profile", profile, "--link", "1Gbit")
    for batch in ((), ("--batch", "7")):
        result = taut(*asked, *batch)
        assert isinstance(result.exception, ArgumentError)
        assert "one of 64, 32" in str(result.exception)
    layers.write_text(LAYERS + LAYERS)
    result = taut(*asked, "--batch", "32")
    assert isinstance(result.exception, ArgumentError)
    assert "there are 2, of 1, 1 layers" in str(result.exception)
    layers.write_text(LAYERS.replace("1.500", "1.800"))
    assert isinstance(taut(*asked, "--batch", "32").exception, ArtefactError)


def test_one_worker_needs_no_compression(layers: Path, profile: Path) -> None:
    asked = ("--profile", profile, "--link", "1Gbit", "--workers", "1", "--batch", "32")
    assert "don't compress" in taut("advise", "--layers", layers, *asked).output


def test_the_study_prints_a_count_for_each_link(tmp_path: Path) -> None:
    document = tmp_path / "study.json"
    shown = taut("advise", "--study", "--json", document)
    assert shown.exit_code == 0, shown.output
    assert "10 Gbit/s: compression pays in" in shown.output
    assert all(row["set_ups"] > 200 for row in json.loads(document.read_text())["bandwidths"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "MODEL"),
        (("x.py:f", "--study"), "MODEL"),
        (("x.py:f", "--recipe", "r.json"), "--recipe"),
        (("x.py:f", "--link", "fast"), "--link"),
        (("x.py:f", "--link", "10GB"), "--link"),
        (("x.py:f", "--link", "10GB/s"), "--link"),
        (("x.py:f", "--link", "10GBps"), "--link"),
        (("x.py:f", "--link", "0bit"), "--link"),
        (("x.py:f", "--backward", "120"), "--backward"),
        (("x.py:f", "--bucket", "0"), "--bucket"),
        (("x.py:f", "--bucket", "nan"), "--bucket"),
        (("x.py:f", "--bucket", "inf"), "--bucket"),
        (("x.py:f", "--link", "10 parsec"), "--link"),
        (("x.py:f", "--link", "nan"), "--link"),
        (("x.py:f", "--workers", "0"), "--workers"),
        (("x.py:f", "--workers", "-1"), "--workers"),
        (("x.py:f", "--workers", "9" * 30), "--workers"),
        (("x.py:f", "--encoder-speed", "nan"), "--encoder-speed"),
        (("x.py:f", "--encoder-speed", "0"), "--encoder-speed"),
        (("x.py:f", "--layers", "a.prof"), "--layers"),
        (("x.py:f", "--batch", "3"), "--batch"),
        (("--layers", "a.prof", "--shape", "1x2"), "--shape"),
        (("--layers", "a.prof", "--study"), "--layers"),
    ],
)
def test_wrong_options_are_refused_before_any_work(arguments: tuple[str, ...], message: str) -> None:
    result = taut("advise", *arguments)
    assert isinstance(result.exception, ArgumentError)
    assert message in str(result.exception)


def test_an_unknown_compressor_is_refused_before_the_model_is_timed(profile: Path) -> None:
    result = taut("advise", "nowhere.py:model", "--profile", profile, "--link", "1Gbit", "--compressor", "gzip")
    assert isinstance(result.exception, ArgumentError)
    assert "--compressor: got 'gzip'" in str(result.exception)


def test_a_loopback_profile_needs_the_bandwidth(model: str, profile: Path) -> None:
    result = taut("advise", model, "--profile", profile)
    assert isinstance(result.exception, ArgumentError)
    assert "--link" in str(result.exception)


def test_a_file_that_is_no_profile_is_refused(model: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    assert isinstance(taut("advise", model, "--profile", path, "--link", "1Gbit").exception, ArtefactError)


def test_nothing_is_overwritten(model: str, profile: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for arguments in (
        ("advise", model, "--profile", profile, "--link", "1Gbit", "--html", kept),
        ("advise", model, "--profile", profile, "--link", "1Gbit", "--json", kept),
        ("probe", "--out", kept),
    ):
        assert isinstance(taut(*arguments).exception, ArgumentError)
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10Gbit", 1e10), ("100Mbit/s", 1e8), ("2.5gbps", 2.5e9), ("800 kbit", 8e5), ("1Tb", 1e12)],
)
def test_links_are_read_in_bits(text: str, bits: float) -> None:
    assert link_bandwidth(text) == link_bandwidth(text.replace("bit", "BIT")) == bits / 8


@pytest.mark.parametrize(("text", "seconds"), [("120ms", 0.12), ("1.5s", 1.5), ("30 us", 3e-5)])
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.slow
def test_probe_on_this_host_and_under_torchrun(tmp_path: Path, model: str) -> None:
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    command = (sys.executable, "-c", "import taut.cli; taut.cli.main()", "comm", "probe", "--out")
    subprocess.run([*command, alone], check=True, capture_output=True)
    assert read_profile(alone).bandwidth is None
    assert set(read_profile(alone).costs) == set(CANDIDATES)
    script = tmp_path / "probe.py"
    script.write_text("import taut.cli\nif __name__ == '__main__':\n    taut.cli.main()\n")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script)
    ran = subprocess.run(
        [*torchrun, "comm", "probe", "--link", "10Gbit", "--out", together], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert read_profile(together).bandwidth == 1.25e9
    shown = taut("advise", model, "--profile", together)
    assert shown.exit_code == 0, shown.output


def test_a_host_that_was_busy_is_probed_again_later(
    model: str, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[Profile] = []

    def probe(ranks: int, progress: object) -> Profile:
        doubts = () if probed else ("the machine was not quiet: it rained",)
        probed.append(replace(read_profile(profile), doubts=doubts))
        return probed[-1]

    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("taut.distributed.probe_host", probe)
    advise = ("advise", model, "--link", "1Gbit")
    for _ in range(2):
        assert "it rained" in " ".join(taut(*advise).output.split())
    assert len(probed) == 1
    for _ in range(2):
        (kept,) = (tmp_path / "cache").rglob("communication-*.json")
        os.utime(kept, (0, 0))
        assert "it rained" not in taut(*advise).output
    assert len(probed) == 2
