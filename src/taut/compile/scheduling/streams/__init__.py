"""Schedules on the streams of a device, captured in one graph."""

from taut.compile.scheduling.streams._cuda import CudaStreams
from taut.compile.scheduling.streams._model import StreamedModel
from taut.compile.scheduling.streams._operators import StreamOperators, stream_operators
from taut.compile.scheduling.streams._program import (
    StreamProgram,
    staged_program,
    unstaged_program,
)
from taut.compile.scheduling.streams._schedule import schedule_streams
from taut.compile.scheduling.streams._streams import InOrderStreams, Streams
from taut.compile.scheduling.streams._verify import verify_program

__all__ = [
    "CudaStreams",
    "InOrderStreams",
    "StreamOperators",
    "StreamProgram",
    "StreamedModel",
    "Streams",
    "schedule_streams",
    "staged_program",
    "stream_operators",
    "unstaged_program",
    "verify_program",
]
