from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from report_sample import bare_report, comparison, sample_report

from taut.errors import ArtefactError, TruncatedError, VersionError
from taut.optimize._report import FORMAT_VERSION, Comparison, Interval, OperatorTime, Report

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("report", [sample_report(), bare_report()], ids=["full", "bare"])
def test_json_round_trip_is_lossless(report: Report):
    assert Report.from_json(report.to_json()) == report


@given(
    ratio=positive,
    bounds=st.tuples(positive, positive).map(sorted) | st.just([None, None]),
    seconds=st.floats(min_value=0, allow_infinity=False),
    text=st.text(),
    host=st.dictionaries(st.text(), json_values, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_any_finite_figure_and_any_text_round_trips(ratio, bounds, seconds, text, host):
    measured = Comparison(
        ratio=ratio,
        low=bounds[0],
        high=bounds[1],
        confidence=0.99,
        verdict="no evidence",
        pairs=3,
        baseline_seconds=seconds,
        candidate_seconds=seconds,
        clock=text,
    )
    report = bare_report(headline=measured, host=host, warnings=(text,))
    assert Report.from_json(report.to_json()) == report


def test_lone_surrogates_of_undecodable_file_names_become_question_marks():
    report = bare_report(warnings=("model\udcff.pt2",), host={"cpu": ["\ud800"]})
    assert report.warnings == ("model?.pt2",)
    assert report.host == {"cpu": ["?"]}
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_refused_when_written(value: float):
    with pytest.raises(ValidationError):
        OperatorTime(module_path="layer", op="linear", before_seconds=value)
    with pytest.raises(ValidationError):
        bare_report(host={"load": [value]})


def test_an_interval_in_the_wrong_order_is_refused():
    with pytest.raises(ValidationError, match="above high"):
        Interval(low=1.0, high=0.5)
    with pytest.raises(ValidationError, match="above high"):
        comparison(1.0, 1.2, 1.1, "faster")


def broken(**changes: object) -> str:
    return json.dumps(json.loads(bare_report().to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "error", "names"),
    [
        ("", TruncatedError, "EOF"),
        (sample_report().to_json()[:2000], TruncatedError, "EOF"),
        (broken(format_version=FORMAT_VERSION + 1, unknown_field=1), VersionError, "newer taut"),
        (broken(format_version=0), ArtefactError, "format_version"),
        (broken(format_version="1"), ArtefactError, "format_version"),
        (broken(status="perfect"), ArtefactError, "status"),
        (broken(goal=None), ArtefactError, "goal"),
        (broken(unknown_field=1), ArtefactError, "unknown_field"),
        (broken(model={"name": "net"}), ArtefactError, "model.source"),
        (broken(max_drop=math.nan), ArtefactError, "max_drop"),
        (broken(host={"load": math.inf}), ArtefactError, "host"),
        (broken(host={"load": 10**30}), ArtefactError, "host"),
        (broken(budget_seconds=-1.0), ArtefactError, "budget_seconds"),
        (broken(spent_seconds=True), ArtefactError, "spent_seconds"),
        (broken(warnings="one"), ArtefactError, "warnings"),
        (broken(operators=[{"module_path": "a", "op": 3}]), ArtefactError, "operators.0.op"),
        (broken().replace('"max_drop": null', '"max_drop": 1e999'), ArtefactError, "max_drop"),
        (broken(host={"deep": json.loads("[" * 40 + "]" * 40)}), ArtefactError, "nested deeper"),
        ("[" * 100_000, ArtefactError, "recursion"),
        ("9" * 10_000, ArtefactError, "report.json"),
        ('{"format_version": ' + "9" * 10_000 + "}", ArtefactError, "report.json"),
        ("null", ArtefactError, "object"),
        (b"\xff\xfe\x00", ArtefactError, "JSON"),
        (b"\x80\x04K\x01.", ArtefactError, "JSON"),
        (" " * (2**25 + 1), ArtefactError, "characters"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_broken_report_gives_a_typed_error_that_names_the_place(text, error: type[Exception], names: str):
    with pytest.raises(error, match=names) as caught:
        Report.from_json(text)
    assert "fix:" in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=200) | json_values.map(json.dumps))
@settings(max_examples=100, deadline=None)
def test_nothing_but_a_typed_error_comes_out_of_arbitrary_input(text):
    with pytest.raises(ArtefactError):
        Report.from_json(text)
