"""The page of a schedule: whole, escaped, drawn to scale."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

from taut.compile.scheduling import (
    CandidateTime,
    ScheduleReport,
    StageTime,
    TimelineSpan,
    Verdict,
    chrome_trace,
    draw_timeline,
    render_schedule,
    summary,
)

HOSTILE = "</td><script>throw 1</script>" + "layer_" * 30


def sample(label: str = "tower.0") -> ScheduleReport:
    """A report of three steps on two workers."""
    spans = (
        TimelineSpan(0, 0.0, 40e-6, "stem", "map"),
        TimelineSpan(0, 40e-6, 100e-6, label, "convolution"),
        TimelineSpan(1, 41e-6, 90e-6, "tower.1", "convolution"),
    )
    stages = (
        StageTime("concurrent", (("stem",),), 41e-6, 40e-6, estimated=True),
        StageTime("concurrent", ((label,), ("tower.1",)), 57e-6, 60e-6),
    )
    candidates = (CandidateTime("sequential", 150e-6, 149e-6), CandidateTime("stages", 98e-6, 100e-6))
    return ScheduleReport(
        workers=2,
        kept="stages",
        staged="stages",
        seconds=100e-6,
        critical_path=90e-6,
        work_by_workers=75e-6,
        stages=stages,
        candidates=candidates,
        untimed=("list",),
        verdict=Verdict("stages", "faster", 1.49, 1.45, None, 0.99, 12),
        operators=3,
        states=4,
        transitions=5,
        requests=6,
        measured=5,
        search_seconds=0.2,
        estimated_steps=4,
        complete=False,
        timelines={"stages": spans},
    )


def test_the_total_is_that_of_the_stages_that_were_predicted() -> None:
    report = sample()
    merged = (*report.candidates, CandidateTime("merged stages", 70e-6, 80e-6))
    assert (report.predicted_total, report.measured_total) == (98e-6, 100e-6)
    other = dataclasses.replace(report, candidates=merged, staged="merged stages")
    assert (other.predicted_total, other.measured_total) == (70e-6, 80e-6)


class Balanced(HTMLParser):
    """Fails on an element that is not closed in its turn."""

    VOID = ("meta", "rect", "line")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_names_from_a_model_are_text_and_nothing_else() -> None:
    page = render_schedule(HOSTILE, sample(HOSTILE))
    assert "<script" not in page
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def test_bars_are_drawn_to_scale() -> None:
    picture = draw_timeline(sample().timelines["stages"], 2, 90e-6, 100e-6)
    widths = [float(width) for width in re.findall(r'class="span".*?width="([\d.]+)"', picture)]
    assert [round(width / widths[0], 2) for width in widths] == [1.0, 1.5, 1.22]
    (limit,) = re.findall(r'class="limit" x1="([\d.]+)"', picture)
    left, right = 70, 70 + sum(widths[:2])
    assert abs((float(limit) - left) / (right - left) - 0.9) < 0.01


def test_the_summary_tells_bound_gap_verdict_and_error() -> None:
    text = "\n".join(summary(sample()))
    for words in (
        "90.0 µs",
        "gap to it is 11%",
        "1.490x [1.450, ?]",
        "off by 3.7%",
        "5 of 6 stages",
        "it ended before",
    ):
        assert words in text


def test_the_trace_has_a_thread_for_each_worker() -> None:
    events = chrome_trace(sample())["traceEvents"]
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == [
        "stages (kept)",
        "worker 0",
        "worker 1",
    ]
    assert [(event["tid"], round(event["ts"]), round(event["dur"])) for event in events if event["ph"] == "X"] == [
        (0, 0, 40),
        (0, 40, 60),
        (1, 41, 49),
    ]
