"""A study keeps every run it made, makes none twice, and says what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_experiment import Toy, make_study

from taut.errors import ArgumentError, ArtefactError, Interrupted, MeasurementError, StorageError, VersionError
from taut.stats import (
    FixedHyperparameterEstimator,
    IdealEstimator,
    InProcess,
    NoisyGrid,
    Processes,
    RandomSearch,
    Range,
    RayWorkers,
    Study,
    StudyStore,
    VarianceBySource,
    deviation_ratio,
    render_study,
    score_rows,
    summarise,
)

TOY = Path(__file__).with_name("toy_experiment.py")
REFERENCE = f"{TOY}:study"

RUN = "import sys; from taut.stats import *; from toy_experiment import study; study.run(sys.argv[1], executor={})"


def toy(study: Study) -> Toy:
    assert isinstance(study.experiment, Toy)
    return study.experiment


def run_lines(store: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (store / "runs.jsonl").read_text().splitlines()]
    return [line for line in lines if "id" in line]


def in_new_process(store: Path, executor: str = "InProcess()", **environment: str) -> int:
    command = [sys.executable, "-c", f"if __name__ == '__main__':\n    {RUN.format(executor)}", str(store)]
    settings = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(TOY.parent), *sys.path])}
    return subprocess.run(command, env=settings, capture_output=True, check=False).returncode


def test_the_second_call_makes_no_run(tmp_path: Path) -> None:
    first, second = make_study(), make_study()
    report = first.run(tmp_path / "store")
    again = second.run(tmp_path / "store")
    assert toy(second).asked == []
    assert again == report
    assert report.complete
    assert report.runs == len(run_lines(tmp_path / "store")) == len(toy(first).asked)
    assert report.scores == make_study().run().scores


def test_a_larger_study_goes_on_from_a_smaller_one(tmp_path: Path) -> None:
    make_study(4).run(tmp_path)
    larger = make_study(6)
    report = larger.run(tmp_path)
    assert 0 < len(toy(larger).asked) < report.runs
    assert report.scores == make_study(6).run().scores


def test_a_smaller_study_reports_nothing_of_the_larger_one(tmp_path: Path) -> None:
    make_study(6).run(tmp_path)
    smaller = make_study(4)
    report = smaller.run(tmp_path)
    assert toy(smaller).asked == []
    assert report.scores == make_study(4).run().scores
    search = RandomSearch(4)
    only = Study("toy study", Toy(), [FixedHyperparameterEstimator(4, search, "all", repetitions=3)])
    assert set(only.run(tmp_path).scores) == {"fixed:all"}
    store = StudyStore.read(tmp_path)
    assert len(score_rows(store, "fixed:all")) == 12
    with pytest.raises(ArgumentError, match="part"):
        score_rows(store)
    with pytest.raises(ArgumentError, match="part"):
        score_rows(store, "ideal")


def test_an_experiment_that_edits_its_hyperparameters_changes_no_other_run(tmp_path: Path) -> None:
    class Edits(Toy):
        def _score(self, phase: str, hyperparameters: Any, streams: Any) -> float:
            score = super()._score(phase, hyperparameters, streams)
            hyperparameters["rate"] = 9.0
            return score

    study = make_study()
    edits = Study(study.name, Edits(), study.parts)
    assert edits.run(tmp_path).scores == make_study().run().scores
    assert {line["hyperparameters"]["rate"] for line in run_lines(tmp_path)} & {9.0} == set()


def test_an_experiment_that_exits_has_failed() -> None:
    class Exits(Toy):
        def run(self, hyperparameters: Any, streams: Any) -> float:
            raise SystemExit(3)

    report = Study("exits", Exits(), [VarianceBySource(2)]).run()
    assert report.failures == report.runs == 8
    assert "SystemExit: 3" in report.errors[0]


def test_equal_scores_have_no_deviation() -> None:
    class Constant(Toy):
        def run(self, hyperparameters: Any, streams: Any) -> float:
            return 0.1

    parts = [VarianceBySource(7), FixedHyperparameterEstimator(7, RandomSearch(2), repetitions=3)]
    report = Study("constant", Constant(), parts).run()  # the mean of seven times .1 is not .1
    assert [one.std.estimate for one in report.sources] == [0] * 4
    assert [one.bootstrap.high for one in report.sources] == [0] * 4
    assert "no source moves the score" in report.verdict
    assert (report.estimators[0].std, report.estimators[0].correlated) == (0, None)


def test_numbers_of_numpy_are_taken_as_they_are() -> None:
    point = {"rate": np.float32(0.5), "penalty": np.int64(1)}
    ours = Study("numbers", Toy(), [VarianceBySource(2, point)]).run()
    assert ours.scores == Study("numbers", Toy(), [VarianceBySource(2, {"rate": 0.5, "penalty": 1})]).run().scores


def wrong(value: object) -> Any:
    """A value that the type checker would refuse."""
    return value


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VarianceBySource(2, {"rate": float("nan")}), "rate"),
        (lambda: VarianceBySource(2, sources=("data_split", "data_split")), "sources"),
        (lambda: RandomSearch(wrong(2.5)), "budget"),
        (lambda: RandomSearch(wrong(float("nan"))), "budget"),
        (lambda: NoisyGrid(wrong(2.5)), "steps"),
        (lambda: IdealEstimator(2, wrong(5)), "search"),
        (lambda: FixedHyperparameterEstimator(2, wrong(None)), "search"),
        (lambda: Study("x", Toy(), [wrong(5)]), "parts"),
        (lambda: Study("x", Toy(), wrong(5)), "parts"),
        (lambda: Range(wrong("0"), 1, 0.5), "Range"),
        (lambda: Study("x", renamed("all_together"), [VarianceBySource(2)]), "all_together"),
        (lambda: Study("x", renamed("numerical_noise"), [VarianceBySource(2)]), "numerical_noise"),
        (lambda: Study("x", renamed(5), [VarianceBySource(2)]), "sources"),
    ],
)
def test_what_makes_no_study_is_named(make: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make()


def renamed(source: Any) -> Toy:
    experiment = Toy()
    experiment.sources = ("data_split", source)
    return experiment


@pytest.mark.parametrize("line", ["[" * 100_000, '{"part": "ideal", "repetition": -1, "replicate": 0, "is": "x"}'])
def test_a_hostile_line_is_named(tmp_path: Path, line: str) -> None:
    make_study().run(tmp_path)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ArtefactError, match="damaged"):
        StudyStore.read(tmp_path)
    (tmp_path / "study.json").write_text("[" * 100_000)
    with pytest.raises(ArtefactError, match="JSON"):
        StudyStore.read(tmp_path)


def test_seeds_and_hyperparameters_are_recorded_and_repeat_the_score(tmp_path: Path) -> None:
    from taut.stats import Streams

    make_study().run(tmp_path)
    for line in run_lines(tmp_path):
        assert set(line["seeds"]) == set(Toy.sources)
        phase = Toy().run if line["phase"] == "score" else Toy().validate
        assert phase(line["hyperparameters"], Streams(line["seeds"])) == line["score"]


@pytest.mark.parametrize("at", [1, 20, 90])
def test_killed_half_way_and_resumed_no_run_is_lost_or_repeated(tmp_path: Path, at: int) -> None:
    countdown = tmp_path / "countdown"
    countdown.write_text(str(at))
    assert in_new_process(tmp_path / "store", TOY_KILL_AT=str(countdown)) == -9
    before = run_lines(tmp_path / "store")
    assert len(before) == at - 1  # the run that was under way is the only one that is not there
    unfinished = summarise(StudyStore.read(tmp_path / "store"))
    assert not unfinished.complete
    assert unfinished.runs == len(before)
    study = make_study()
    report = study.run(tmp_path / "store")
    assert report.complete
    after = run_lines(tmp_path / "store")
    assert after[: len(before)] == before
    assert len({line["id"] for line in after}) == len(after) == report.runs
    assert len(toy(study).asked) == len(after) - len(before)
    assert report.scores == make_study().run().scores


@pytest.mark.slow
def test_killed_with_workers_and_resumed_no_run_is_lost_or_repeated(tmp_path: Path) -> None:
    countdown = tmp_path / "countdown"
    countdown.write_text("40")
    settings = {"TOY_KILL_AT": str(countdown), "TOY_KILL": "parent"}
    assert in_new_process(tmp_path / "store", f"Processes(1, {REFERENCE!r})", **settings) == -9
    before = run_lines(tmp_path / "store")
    report = make_study().run(tmp_path / "store", executor=Processes(2, REFERENCE))
    after = run_lines(tmp_path / "store")
    assert after[: len(before)] == before
    assert len({line["id"] for line in after}) == len(after) == report.runs
    assert report.scores == make_study().run().scores


@pytest.mark.parametrize("cut", [1, 30])
def test_a_last_line_that_was_cut_short_is_made_again(tmp_path: Path, cut: int) -> None:
    report = make_study().run(tmp_path)
    log = tmp_path / "runs.jsonl"
    log.write_bytes(log.read_bytes()[:-cut])
    study = make_study()
    assert study.run(tmp_path).scores == report.scores
    assert len(toy(study).asked) == 1
    assert len(run_lines(tmp_path)) == report.runs


def test_a_damaged_line_elsewhere_is_named(tmp_path: Path) -> None:
    make_study().run(tmp_path)
    log = tmp_path / "runs.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for damage in (
        "no json\n",
        '{"id": 3}\n',
        "[]\n",
        lines[-1].replace('"error": null', '"error": null, "score": NaN'),
    ):
        log.write_text("".join([*lines[:2], damage, *lines[3:]]))
        with pytest.raises(ArtefactError, match="line 3 is damaged"):
            make_study().run(tmp_path)
        with pytest.raises(ArtefactError, match="line 3 is damaged"):
            StudyStore.read(tmp_path)


def test_the_store_of_another_study_is_refused(tmp_path: Path) -> None:
    make_study().run(tmp_path)
    other_parts = [VarianceBySource(2)]
    for other in (Study("other", Toy(), other_parts), Study("toy study", Toy(), other_parts, seed=1)):
        with pytest.raises(ArgumentError, match="store"):
            other.run(tmp_path)
    header = StudyStore.read(tmp_path).header
    for parts in ([{}], [{"kind": "ideal", "label": "x", "places": 3}], None):
        (tmp_path / "study.json").write_text(json.dumps({**header, "parts": parts}))
        with pytest.raises(ArtefactError, match="does not describe a study"):
            summarise(StudyStore.read(tmp_path))
    (tmp_path / "study.json").write_text('{"format": 2}')
    with pytest.raises(VersionError, match="format 2"):
        make_study().run(tmp_path)
    (tmp_path / "study.json").unlink()
    with pytest.raises(ArtefactError, match=r"no study\.json"):
        make_study().run(tmp_path)


def test_two_writers_are_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    make_study().run(tmp_path)
    header = StudyStore.read(tmp_path).header
    with StudyStore.open(tmp_path, header):
        with pytest.raises(StorageError, match="another process"):
            make_study().run(tmp_path)
        assert summarise(StudyStore.read(tmp_path)).complete
    make_study().run(tmp_path)


def test_failures_are_recorded_and_made_again_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [VarianceBySource(20)]
    monkeypatch.setenv("TOY_FAIL", "1.0")
    report = Study("fails", Toy(), parts).run(tmp_path)
    assert 0 < report.failures < 10
    assert report.errors[0] == "ValueError: the toy is broken"
    assert "failed: ValueError: the toy is broken" in report.lines()
    monkeypatch.delenv("TOY_FAIL")
    kept = Study("fails", Toy(), parts)
    assert kept.run(tmp_path).failures == report.failures
    assert toy(kept).asked == []
    again = Study("fails", Toy(), parts)
    assert again.run(tmp_path, retry_failures=True).failures == 0
    assert len(toy(again).asked) == report.failures


def test_a_search_without_a_single_fit_stops_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FAIL", "-10")
    with pytest.raises(MeasurementError, match=r"all 2 fits .* ValueError: the toy is broken"):
        Study("x", Toy(), [IdealEstimator(1, RandomSearch(2))]).run(tmp_path)


def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    class Stopped(Toy):
        def run(self, hyperparameters: Any, streams: Any) -> float:
            if len(self.asked) == 5:
                raise KeyboardInterrupt
            return super().run(hyperparameters, streams)

    parts = [VarianceBySource(4)]
    with pytest.raises(Interrupted, match="5 runs done"):
        Study("x", Stopped(), parts).run(tmp_path)
    assert len(run_lines(tmp_path)) == 5
    assert not summarise(StudyStore.read(tmp_path)).complete
    assert Study("x", Toy(), parts).run(tmp_path).complete
    assert len(run_lines(tmp_path)) == 16


def test_progress_rises_to_the_end() -> None:
    shares: list[float] = []
    make_study().run(progress=lambda doing, share: shares.append(share))
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1


@pytest.mark.parametrize("executor", [InProcess(), Processes(1, REFERENCE)])
def test_a_session_has_one_thread_and_leaves_the_settings_as_they_were(executor: Any) -> None:
    import torch

    before, environment = torch.get_num_threads(), dict(os.environ)
    torch.set_num_threads(2)
    try:
        with executor.session(Toy()):
            assert torch.get_num_threads() == 1
            assert os.environ["OMP_NUM_THREADS"] == "1"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_worker_processes_give_the_same_bits() -> None:
    here = make_study().run(executor=InProcess())
    there = make_study()
    assert there.run(executor=Processes(2, REFERENCE)).scores == here.scores
    assert toy(there).asked == []  # not one was made here


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_two_ray_workers_give_the_same_bits(tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("the package ray of the study extra is not installed")
    here = make_study().run(executor=InProcess())
    there = make_study().run(tmp_path, executor=RayWorkers(2, REFERENCE))
    assert there.scores == here.scores
    assert len({line["id"] for line in run_lines(tmp_path)}) == len(run_lines(tmp_path)) == here.runs


@pytest.mark.slow
def test_a_worker_that_has_another_experiment_is_refused() -> None:
    class Other(Toy):
        name = "other"

    with pytest.raises(MeasurementError, match="'toy-1' in a worker, here it is 'other'"):
        Study("x", Other(), [VarianceBySource(2)]).run(executor=Processes(1, REFERENCE))


def test_workers_that_cannot_be_started_are_refused() -> None:
    for executor in (Processes, RayWorkers):
        with pytest.raises(ArgumentError, match="workers"):
            executor(0, REFERENCE)
        with pytest.raises(ArgumentError, match="reference"):
            executor(2, "nothing")
        with pytest.raises(ArgumentError, match="reference"):
            executor(2, "missing.py:study")


def test_the_report_finds_the_source_that_moves_the_score() -> None:
    report = Study("x", Toy(), [VarianceBySource(40, noise=3)]).run()
    rows = {one.source: one for one in report.sources}
    assert [one.source for one in report.sources][:3] == ["data_split", "data_order", "initialisation"]
    assert rows["data_split"].std.low < 3.0 < rows["data_split"].std.high
    assert rows["numerical_noise"].std.estimate == 0
    assert rows["all_together"].std.low < (9 + 1 + 0.25) ** 0.5 < rows["all_together"].std.high
    assert "data_split moves the score most" in report.verdict
    assert report.verdict.endswith("it dominates")


def test_the_report_shows_the_floor_of_the_biased_estimator() -> None:
    search = RandomSearch(2)
    parts = [FixedHyperparameterEstimator(20, search, vary, repetitions=30) for vary in ("init", "all")]
    report = Study("x", Toy(), [IdealEstimator(50, search), *parts]).run()
    ideal, init, everything = report.estimators
    assert init.correlated is not None
    assert init.correlated.rho.low > 0.9
    assert everything.correlated is not None
    assert everything.correlated.rho.low < 0.05
    assert ideal.std_of_mean is not None
    assert ideal.std_of_mean.estimate == pytest.approx(3.2 / 50**0.5, rel=0.3)
    assert ideal.worth == pytest.approx(50)
    assert init.worth is not None
    assert init.worth < 2  # twenty runs that share split and order are worth hardly more than one
    assert report.ratios["fixed:all"].high < 1
    assert any("smaller" in line for line in report.lines())


def test_an_unfinished_study_reports_the_repetitions_that_are_done_and_pairs_them(tmp_path: Path) -> None:
    search = RandomSearch(3)
    parts = [FixedHyperparameterEstimator(8, search, vary, repetitions=10) for vary in ("init", "all")]
    whole = Study("x", Toy(), parts).run(tmp_path)
    log = tmp_path / "runs.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-30]))  # the last of "all": 3 repetitions wholly, and most of a fourth
    report = summarise(StudyStore.read(tmp_path))
    assert not report.complete
    table = {label: np.array(whole.scores[label]) for label in whole.scores}
    of_all = {one.label: one for one in report.estimators}["fixed:all"]
    assert of_all.correlated is not None
    assert of_all.correlated.repetitions == 6
    assert of_all.std_of_mean is not None
    assert of_all.std_of_mean.estimate == pytest.approx(table["fixed:all"][:6].mean(axis=1).std(ddof=1))
    expected = deviation_ratio(*(table[f"fixed:{vary}"][:6].mean(axis=1) for vary in ("all", "init")))
    assert report.ratios["fixed:all"].low == pytest.approx(expected.low)


def test_a_source_that_does_not_matter_gives_no_verdict() -> None:
    class Constant(Toy):
        def run(self, hyperparameters: Any, streams: Any) -> float:
            return 0.5

    report = Study("x", Constant(), [VarianceBySource(3)]).run()
    assert report.verdict == "cannot decide which source dominates: no source moves the score"


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    report = Study("<b>bold</b>", Toy(), make_study().parts).run()
    page = render_study(report)
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert page.count("<svg") == page.count("</svg>") == 2
    for loading in ("http:", "https:", "src=", "<script", "<link", "@import", "url("):
        assert loading not in page
    for one in report.sources:
        assert one.source in page
