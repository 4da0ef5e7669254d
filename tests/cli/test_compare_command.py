"""`taut compare`: files in, verdict, picture and missing runs out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from taut.cli._compare import compare, ruler
from taut.errors import ArgumentError, DataError, StorageError
from taut.stats import draw_comparison, outperformance


def call(*arguments: str):
    """Run the command; its error is raised here."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(compare)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def runs(shift: float, n: int = 29, seed: int = 0) -> list[tuple[int, float]]:
    """Runs with the same splits for the same seeds, in an order of their own."""
    generator = np.random.default_rng(round(1000 * shift) + seed)
    splits = np.random.default_rng(99).normal(0, 0.05, 1000)
    scores = [(index, float(0.8 + shift + splits[index] + generator.normal(0, 0.01))) for index in range(n)]
    return [scores[index] for index in generator.permutation(n)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    for name, shift in (("better", 0.02), ("base", 0.0)):
        rows = "".join(f"{seed},{score!r},{-score!r}\n" for seed, score in runs(shift))
        (tmp_path / f"{name}.csv").write_text(f"seed,accuracy,loss\n{rows}")
    return tmp_path


def figures(*arguments: str) -> dict:
    return json.loads(call(*arguments, "--json", "-").stdout)


def test_runs_are_paired_by_seed_and_the_verdict_is_printed(folder) -> None:
    result = call("better.csv", "base.csv", "--metric", "accuracy")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("A better (better)")
    assert max(map(len, lines)) <= 80
    assert "paired by seed" in result.stdout
    a, b = (np.array([score for _, score in sorted(runs(shift))]) for shift in (0.02, 0.0))
    expected = outperformance(a, b, paired=True)
    found = figures("better.csv", "base.csv", "--metric", "accuracy")
    assert found["interval"]["low"] == expected.interval.low
    assert (found["verdict"], found["sizes"], found["paired"]) == ("A better", [29, 29], True)


def test_unpaired_and_lower_is_better(folder) -> None:
    assert figures("better.csv", "base.csv", "--metric", "accuracy", "--unpaired")["pairing"] == "unpaired"
    found = figures("better.csv", "base.csv", "--metric", "loss", "--lower-is-better")
    assert found["verdict"] == "A better"
    assert figures("better.csv", "base.csv", "--metric", "loss")["verdict"] == "B better"


def test_missing_runs_are_counted(folder) -> None:
    for name, shift in (("a", 0.003), ("b", 0.0)):
        (folder / f"{name}.json").write_text(json.dumps([{"seed": s, "score": x} for s, x in runs(shift, 20, 5)]))
    result = call("a.json", "b.json")
    found = figures("a.json", "b.json")
    assert found["verdict"] == "not significant"
    assert found["more_runs"]["to_find_gamma"] == 54 - 20
    assert "you need 34 more runs of each system" in " ".join(result.stdout.split())
    shared = call("a.json", "b.json", "--correlation", "0.3").stdout
    assert "repeat the search" in " ".join(shared.split())


def test_one_file_with_a_column_of_systems(folder) -> None:
    lines = [f"{name},{seed},{score}" for name, shift in (("x", 0.02), ("y", 0.0)) for seed, score in runs(shift)]
    (folder / "all.csv").write_text("\n".join(["model,seed,score", *lines]))
    assert figures("x", "y", "--from", "all.csv", "--system", "model")["verdict"] == "A better"
    with pytest.raises(DataError, match="no row with model 'z'") as raised:
        call("x", "z", "--from", "all.csv", "--system", "model")
    assert "x, y" in str(raised.value)
    with pytest.raises(DataError, match="no column 'system'"):
        call("x", "y", "--from", "all.csv")


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("csv", "0.5\n0.75\n\n1.0\n"),
        ("csv", "score,note\n0.5,a\n0.75,b\n1.0,c\n"),
        ("json", "[0.5, 0.75, 1]"),
        ("json", '{"score": [0.5, 0.75, 1.0], "note": ["a", "b", "c"]}'),
        ("jsonl", '{"score": 0.5}\n{"score": 0.75}\n\n{"score": 1.0}\n'),
    ],
)
def test_every_format_of_scores(folder, suffix: str, text: str) -> None:
    (folder / f"a.{suffix}").write_text(text)
    (folder / "b.json").write_text("[0.25, 0.5, 0.75]")
    found = figures(f"a.{suffix}", "b.json")
    assert (found["wins"], found["ties"]) == (pytest.approx(6 / 9), pytest.approx(2 / 9))
    assert found["pairing"] == "unpaired"
    assert figures(f"a.{suffix}", "b.json", "--paired")["wins"] == 1


def test_pictures_need_nothing_else(folder) -> None:
    (folder / "<odd & name>.csv").write_text((folder / "better.csv").read_text())
    call("<odd & name>.csv", "base.csv", "--metric", "accuracy", "--svg", "o.svg", "--html", "o.html")
    picture, page = (folder / "o.svg").read_text(), (folder / "o.html").read_text()
    drawing = ElementTree.fromstring(picture)
    assert len(drawing.findall(".//{*}circle")) == 1 + 29 + 29
    assert "<odd & name>" in "".join(drawing.itertext())
    assert "<odd" not in page
    assert picture.strip() in page
    for text in (picture.replace('xmlns="http://www.w3.org/2000/svg"', ""), page.replace("http://www.w3.org/", "")):
        assert not any(word in text for word in ("http", "url(", "<script", "@import"))


@pytest.mark.parametrize("paired", [True, False])
def test_a_page_of_very_many_runs_is_small_and_says_what_it_leaves_out(paired: bool) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(0, 1, 5000), generator.normal(0, 1, 5000 if paired else 40)
    found = outperformance(a, b, paired=paired)
    picture = draw_comparison(found, a, b, ("A", "B"), "score")
    drawing = ElementTree.fromstring(picture)
    assert len(drawing.findall(".//{*}circle[@class='a']")) == 500
    assert len(drawing.findall(".//{*}circle[@class='b']")) == (500 if paired else 40)
    assert len(drawing.findall(".//{*}line[@class='pair']")) == (500 if paired else 0)
    assert len(picture) < 200_000
    text = "".join(drawing.itertext())
    assert ("500 of 5,000 pairs" if paired else "500 of 5,000 and 40 runs") in text
    drawn = [float(dot.attrib["cx"]) for dot in drawing.findall(".//{*}circle[@class='a']")]
    if not paired:  # the drawn runs have the quantiles of all
        place = np.interp([a.min(), np.median(a), a.max()], [min(a.min(), b.min()), max(a.max(), b.max())], [96, 696])
        assert [min(drawn), np.median(drawn), max(drawn)] == pytest.approx(place, abs=0.6)


def test_names_that_would_command_the_terminal_are_made_harmless(folder) -> None:
    name = "\x1b[2J\u202ebetter\nB better"
    (folder / f"{name}.csv").write_text((folder / "better.csv").read_text())
    result = call(
        f"{name}.csv", "base.csv", "--metric", "accuracy", "--json", "-", "--html", "o.html", "--svg", "o.svg"
    )
    assert json.loads(result.stdout)["a"] == name
    for text in (result.stderr, (folder / "o.html").read_text(), (folder / "o.svg").read_text()):
        assert not {"\x1b", "\u202e"} & set(text)
        assert not any(line.startswith("B better") for line in text.splitlines())
    ElementTree.fromstring((folder / "o.svg").read_text())


def test_one_file_under_two_names_is_noticed(folder) -> None:
    (folder / "link.csv").symlink_to(folder / "better.csv")
    for other in ("./better.csv", "link.csv"):
        with pytest.raises(ArgumentError, match="A and B"):
            call("better.csv", other, "--metric", "accuracy")
    (folder / "sub").mkdir()
    (folder / "sub" / "better.csv").write_text((folder / "base.csv").read_text())
    assert call("better.csv", "sub/better.csv", "--metric", "accuracy").stdout.startswith("A better (better.csv)")


def test_a_picture_of_constant_and_of_extreme_scores_has_numbers_only(folder) -> None:
    (folder / "a.json").write_text("[1e308, 1e308]")
    (folder / "b.json").write_text("[-1e308, 1e308]")
    call("a.json", "b.json", "--svg", "o.svg")
    (folder / "c.json").write_text("[1e308, 1e308]")
    call("a.json", "c.json", "--svg", "p.svg")
    for name in ("o.svg", "p.svg"):
        numbers = re.findall(r' (?:x|x1|x2|cx)="([^"]*)"', (folder / name).read_text())
        assert numbers
        assert all(0 <= float(number) <= 720 for number in numbers)


def test_the_ruler_shows_interval_estimate_and_limits() -> None:
    found = outperformance(np.arange(29) + 0.5, np.arange(29)[::-1], paired=False)
    line = ruler(found)
    assert len(line) == 65
    assert [line.count(mark) for mark in "[o]"] == [1, 1, 1]
    assert line.index("[") < line.index("o") < line.index("]")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "seed,score\n1,0.5\n1,0.6\n", "A: seed '1' occurs 2 times"),
        ("a.csv", "seed,score\n1,0.5\n2,nan\n", "score of run 2 is 'nan'"),
        ("a.csv", "seed,score\n1,0.5\n2,\n", "score of run 2 is ''"),
        ("a.csv", "seed,score\n1,0.5\n2\n", "(?s)run 2 has 1 fields: 2.*fix: fill in"),
        ("a.csv", "seed,score\n1,0.5,9\n", "(?s)run 1 has 3 fields: 1, 0.5, 9.*fix: take out"),
        ("a.csv", "seed,score\n", "no run"),
        ("a.csv", "score,score\n1,2\n", "same name"),
        ("a.csv", "seed,score,time\n1,0.5,3\n", "2 hold numbers: score, time"),
        ("a.csv", "", "is empty"),
        ("a.csv", 'score\n"0.5\n', "is not CSV"),
        ("a.json", '[{"seed": 1, "score": NaN}]', "score of run 1 is nan"),
        ("a.json", '[{"seed": 1, "score": 0.1}, {"seed": 2}]', "score of run 2 is None"),
        ("a.json", '[{"seed": 1, "score": 0.1}, {"seed": 2, "score": 1' + "0" * 400 + "}]", "score of run 2 is"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.csv", "seed,score,epoch\n1,failed,3\n2,0.5,4\n", "2 hold numbers: score, epoch"),
        ("a.json", '[{"seed": 1, "epoch": 3}, {"seed": 2, "epoch": 3, "score": 0.5}]', "2 hold numbers: epoch, score"),
        ("a.csv", "seed,score\n1,0.5\n,0.6\n", "run 2 has no seed"),
        ("a.csv", "seed,score\n1,0.5\n1.0,0.6\n", "A: seed '1' occurs 2 times"),
        ("a.csv", "part,seed,score\nideal,1,0.5\nfixed:all,2,0.6\n", "scores of 2 parts of a study"),
        ("a.json", "[[1]]", "holds no scores"),
        ("a.json", "{}", "lengths"),
        ("a.json", '{"seed": [1, 2], "score": [1]}', "lengths"),
        ("a.json", "[]", "holds no scores"),
        ("a.json", '{"seed": [], "score": []}', "no run"),
        ("a.json", "0.5", "holds no scores"),
        ("a.txt", "0.5", "says no format"),
    ],
)
def test_bad_files_are_named(folder, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    (folder / "b.csv").write_text("seed,score\n1,0.5\n2,0.6\n")
    with pytest.raises(DataError, match=message):
        call(name, "b.csv")


def test_whole_seeds_match_however_they_are_written(folder) -> None:
    (folder / "a.csv").write_text("seed,score\n1,0.5\n2,0.6\n")
    (folder / "b.json").write_text('{"seed": [2.0, 1.0], "score": [0.5, 0.4]}')
    found = figures("a.csv", "b.json")
    assert (found["pairing"], found["wins"]) == ("paired by seed", 1)


def test_lines_end_at_line_feeds_alone(folder) -> None:
    (folder / "a.jsonl").write_text('{"note": "one\u2028two", "score": 0.5}\n{"note": "", "score": 0.6}\n', "utf-8")
    (folder / "b.json").write_text("[0.25, 0.5]")
    assert figures("a.jsonl", "b.json")["sizes"] == [2, 2]


def test_bad_calls_are_named(folder) -> None:
    (folder / "seeds.csv").write_text("seed,score\n1,0.5\n2,0.6\n")
    (folder / "plain.csv").write_text("score\n0.5\n0.7\n")
    with pytest.raises(DataError, match="A has seeds and B has none"):
        call("seeds.csv", "plain.csv", "--paired")
    with pytest.raises(ArgumentError, match="--system"):
        call("seeds.csv", "plain.csv", "--system", "model")
    with pytest.raises(DataError, match="no column ''"):
        call("seeds.csv", "plain.csv", "--seed", "")
    (folder / "short.csv").write_text("score\n0.5\n0.6\n")
    (folder / "long.csv").write_text("score\n0.5\n0.6\n0.7\n")
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no column 'f1'"):
        call("better.csv", "base.csv", "--metric", "f1")
    with pytest.raises(DataError, match="no column 'run'"):
        call("short.csv", "long.csv", "--seed", "run")
    with pytest.raises(DataError, match="A has 2 runs and B 3"):
        call("short.csv", "long.csv", "--paired")
    with pytest.raises(DataError, match="cannot be read"):
        call("absent.csv", "long.csv")
    with pytest.raises(DataError, match="UTF-8"):
        call("binary.csv", "long.csv")
    with pytest.raises(DataError, match="'accuracy' and B"):
        (folder / "other.csv").write_text("accuracy\n0.5\n0.6\n")
        call("other.csv", "long.csv")
    with pytest.raises(ArgumentError, match="A and B"):
        call("short.csv", "short.csv")
    with pytest.raises(ArgumentError, match="gamma"):
        call("short.csv", "long.csv", "--gamma", "0.4")
    with pytest.raises(StorageError, match="--html"):
        call("short.csv", "long.csv", "--html", "absent/o.html")
    (folder / "o.svg").write_text("precious")
    with pytest.raises(ArgumentError, match="--svg"):
        call("short.csv", "long.csv", "--svg", "o.svg")
    assert (folder / "o.svg").read_text() == "precious"
    with pytest.raises(ArgumentError, match="another file than --html"):
        call("short.csv", "long.csv", "--html", "one", "--svg", "./one")
    assert not (folder / "one").exists()


def test_one_run_cannot_decide(folder) -> None:
    (folder / "a.json").write_text("[0.5]")
    (folder / "b.json").write_text("[0.4]")
    found = figures("a.json", "b.json")
    assert found["verdict"] == "cannot decide"
    assert found["more_runs"]["to_find_gamma"] > 20


def test_the_command_starts_without_torch(folder) -> None:
    program = (
        "import sys; sys.argv = ['taut', 'compare', 'better.csv', 'base.csv', '--metric', 'accuracy']\n"
        "import atexit; atexit.register(lambda: print('torch' in sys.modules))\n"
        "import taut.cli; taut.cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"
