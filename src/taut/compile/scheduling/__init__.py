"""Schedules of real programs: what to run at the same time, found by measurement, and kept only where it pays."""

from taut.compile.scheduling._merge import Mergeable, merge_convolutions, mergeable
from taut.compile.scheduling._page import chrome_trace, draw_timeline, render_schedule, summary
from taut.compile.scheduling._queues import propose_queues, with_queues
from taut.compile.scheduling._report import (
    CandidateTime,
    ScheduleReport,
    StageTime,
    TimelineSpan,
    Verdict,
    schedule_of,
)
from taut.compile.scheduling._schedule import Progress, ScheduledModel, schedule

__all__ = [
    "CandidateTime",
    "Mergeable",
    "Progress",
    "ScheduleReport",
    "ScheduledModel",
    "StageTime",
    "TimelineSpan",
    "Verdict",
    "chrome_trace",
    "draw_timeline",
    "merge_convolutions",
    "mergeable",
    "propose_queues",
    "render_schedule",
    "schedule",
    "schedule_of",
    "summary",
    "with_queues",
]
