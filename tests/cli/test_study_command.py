"""`taut study`: from a file to a store, and from a store to a report."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from taut.cli._app import app
from taut.errors import ArgumentError, ArtefactError, MeasurementError, ModelLoadError

FILE = """
from taut.stats import Study, VarianceBySource

class Sum:
    name, sources = "sum", ("data_split", "initialisation")
    def run(self, hyperparameters, streams):
        return 2 * streams.generator("data_split").normal() + streams.generator("initialisation").normal()

study = Study("sums", Sum(), [VarianceBySource(20)])
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "sums.py"
    path.write_text(FILE)
    return path


def taut(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["study", *(str(one) for one in arguments)], catch_exceptions=True)


def test_run_and_report(study_file: Path, tmp_path: Path) -> None:
    store, page, document = (tmp_path / name for name in ("store", "page.html", "report.json"))
    ran = taut("run", study_file, "--store", store)
    assert ran.exit_code == 0, ran.output
    assert "data_split moves the score most" in ran.output
    shown = taut("report", store, "--html", page, "--json", document)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == ran.stdout.splitlines()
    report = json.loads(document.read_text())
    assert report["runs"] == 60
    assert [one["source"] for one in report["sources"]][:2] == ["data_split", "initialisation"]
    assert "<svg" in page.read_text()
    on_stdout = taut("report", store, "--json", "-")
    assert json.loads(on_stdout.stdout) == report


def test_the_store_is_named_after_the_file(study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert taut("run", study_file).exit_code == 0
    before = (tmp_path / "sums.study" / "runs.jsonl").read_bytes()
    assert taut("run", study_file).exit_code == 0
    assert (tmp_path / "sums.study" / "runs.jsonl").read_bytes() == before


def test_two_studies_of_equal_seed_are_compared_in_pairs(study_file: Path, tmp_path: Path) -> None:
    better = tmp_path / "better.py"
    better.write_text(FILE.replace('"sum"', '"better"').replace("return 2", "return 0.5 + 2"))
    for path in (study_file, better):
        assert taut("run", path, "--store", tmp_path / path.stem).exit_code == 0
        exported = taut("report", tmp_path / path.stem, "--scores", tmp_path / f"{path.stem}.csv")
        assert exported.exit_code == 0, exported.exception
    files = [str(tmp_path / f"{name}.csv") for name in ("better", "sums")]
    compared = CliRunner().invoke(app, ["compare", *files, "--json", "-"])
    assert compared.exit_code == 0, compared.exception
    verdict = json.loads(compared.stdout)
    assert verdict["paired"] is True
    assert verdict["sizes"] == [20, 20]  # the runs of one part, in which all sources are redrawn
    assert verdict["wins"] == 1


def test_one_part_is_exported_and_biased_ones_say_what_they_need(study_file: Path, tmp_path: Path) -> None:
    part = "FixedHyperparameterEstimator(4, RandomSearch(2), repetitions=2)"
    text = FILE.replace("VarianceBySource(20)", f"VarianceBySource(20, together=False), {part}")
    text = text.replace("import Study", "import FixedHyperparameterEstimator, RandomSearch, Range, Study")
    searchable = "    space = {'rate': Range(0, 1, 0.5)}\n    def validate(self, h, s):\n        return h['rate']\n"
    study_file.write_text(text.replace("class Sum:\n", f"class Sum:\n{searchable}"))
    store = tmp_path / "store"
    assert taut("run", study_file, "--store", store).exit_code == 0
    refused = taut("report", store, "--scores", tmp_path / "none.csv")
    assert isinstance(refused.exception, ArgumentError)
    assert "fixed:all" in str(refused.exception)
    assert not (tmp_path / "none.csv").exists()
    shown = taut("report", store, "--scores", tmp_path / "one.csv", "--part", "fixed:all")
    assert shown.exit_code == 0, shown.exception
    assert "8 of the part fixed:all" in shown.output
    assert "--correlation" in shown.output
    assert isinstance(taut("report", store, "--part", "fixed:all").exception, ArgumentError)


def test_a_file_that_exits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)")
    ended = taut("run", tmp_path / "exits.py", "--store", tmp_path / "store")
    assert isinstance(ended.exception, ModelLoadError)


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    path, store = tmp_path / "stops.py", tmp_path / "store"
    stop = "import os, signal\n        if len(os.environ.setdefault('N', '')) == 9:\n"
    stop += "            os.kill(os.getpid(), signal.SIGINT)\n        os.environ['N'] += 'x'\n        return 2"
    path.write_text(FILE.replace("return 2", stop))
    command = [
        sys.executable,
        "-c",
        "from taut.cli import main; main()",
        "study",
        "run",
        str(path),
        "--store",
        str(store),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 130, ended.stderr
    assert "9 runs done" in ended.stderr
    assert "goes on where it stopped" in ended.stderr
    shown = taut("report", store)
    assert "NOT COMPLETE" in shown.output
    assert "9 runs" in shown.output


def test_a_study_of_failures_alone_is_no_success(study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(FILE.replace("return 2", "raise OSError('no\\x1b data')\n        return 2"))
    for arguments in (("run", study_file, "--store", tmp_path / "store"), ("report", tmp_path / "store")):
        ended = taut(*arguments)
        assert isinstance(ended.exception, MeasurementError)
        assert "all 60 runs failed; the first with OSError" in str(ended.exception)
        assert "--retry-failures" in str(ended.exception)
        assert "60 failed" in ended.output
        assert "\x1b" not in ended.output
    study_file.write_text(FILE)
    assert taut("run", study_file, "--store", tmp_path / "store", "--retry-failures").exit_code == 0


def test_changed_code_under_the_same_name_is_said(study_file: Path, tmp_path: Path) -> None:
    assert "warning" not in taut("run", study_file, "--store", tmp_path / "store").output
    study_file.write_text("# another comment\n" + FILE.replace("VarianceBySource(20)", "VarianceBySource(21)"))
    assert "warning" not in taut("run", study_file, "--store", tmp_path / "store").output
    study_file.write_text(FILE.replace("return 2", "return 3"))
    ran = taut("run", study_file, "--store", tmp_path / "store")
    assert ran.exit_code == 0
    shown = taut("report", tmp_path / "store", "--html", tmp_path / "page.html")
    for text in (ran.output, shown.output, (tmp_path / "page.html").read_text()):
        assert "code changed under the name" in text
        assert "2 versions" in text


def test_sources_with_any_name_make_a_csv_file(study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(FILE.replace("data_split", 'data, \\"split\\"'))
    assert taut("run", study_file, "--store", tmp_path / "store").exit_code == 0
    part = 'source:data, "split"'
    assert taut("report", tmp_path / "store", "--scores", tmp_path / "scores.csv", "--part", part).exit_code == 0
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [row["part"] for row in rows] == [part] * 20


@pytest.mark.slow
def test_workers_make_the_same_runs(study_file: Path, tmp_path: Path) -> None:
    assert taut("run", study_file, "--store", tmp_path / "one").exit_code == 0
    two = taut("run", study_file, "--store", tmp_path / "two", "--workers", "2")
    assert two.exit_code == 0, two.exception
    documents = [json.loads(taut("report", tmp_path / name, "--json", "-").stdout) for name in ("one", "two")]
    assert documents[0]["scores"] == documents[1]["scores"]


def test_files_that_define_no_study_are_refused(tmp_path: Path) -> None:
    cases = {"x = 1": "study", "study = 3": "is of type int", "import nothing_of_that_name": "nothing_of_that_name"}
    for number, (text, said) in enumerate(cases.items()):
        path = tmp_path / f"wrong{number}.py"
        path.write_text(text)
        result = taut("run", path, "--store", tmp_path / "store")
        assert isinstance(result.exception, ModelLoadError)
        assert said in str(result.exception)
    assert isinstance(taut("run", tmp_path / "missing.py").exception, ArgumentError)
    assert not (tmp_path / "store").exists()


def test_reports_of_what_is_no_store_are_refused(study_file: Path, tmp_path: Path) -> None:
    assert isinstance(taut("report", tmp_path / "missing").exception, ArtefactError)
    (tmp_path / "study.json").write_text("[]")
    assert isinstance(taut("report", tmp_path).exception, ArtefactError)
    (tmp_path / "page.html").write_text("mine")
    taut("run", study_file, "--store", tmp_path / "store")
    assert isinstance(taut("report", tmp_path / "store", "--html", tmp_path / "page.html").exception, ArgumentError)
    assert (tmp_path / "page.html").read_text() == "mine"


def test_an_address_without_ray_is_refused(study_file: Path) -> None:
    assert isinstance(taut("run", study_file, "--address", "auto").exception, ArgumentError)
