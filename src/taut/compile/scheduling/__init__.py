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
from taut.compile.scheduling.streams import (
    CudaStreams,
    InOrderStreams,
    StreamedModel,
    StreamOperators,
    StreamProgram,
    Streams,
    schedule_streams,
    staged_program,
    stream_operators,
    unstaged_program,
    verify_program,
)

__all__ = [
    "CandidateTime",
    "CudaStreams",
    "InOrderStreams",
    "Mergeable",
    "Progress",
    "ScheduleReport",
    "ScheduledModel",
    "StageTime",
    "StreamOperators",
    "StreamProgram",
    "StreamedModel",
    "Streams",
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
    "schedule_streams",
    "staged_program",
    "stream_operators",
    "summary",
    "unstaged_program",
    "verify_program",
    "with_queues",
]
