"""The other end of an `IsolatedArm`: `python -m taut.stats._worker` builds a callable and times it on request.

Requests and answers are JSON, one a line, over standard input and output. The process ends with its input and with the
lifeline, a pipe that its parent keeps open, so that it never outlives its parent, not even in the middle of a call.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from taut.stats._arms import time_calls
from taut.stats._clock import resolve_clock


def load_function(reference: str) -> Callable[..., Any]:
    """The function that "module:function" or "path.py:function" names."""
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        if spec is None or spec.loader is None:
            raise ImportError(f"{place} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(module.__name__, module)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    function: Any = module
    for part in name.split("."):
        function = getattr(function, part)
    return function


def _read_requests(source: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        requests.put(line)
    os._exit(0)


def _end_with(lifeline: int) -> None:
    """End this process when the other end of a pipe closes, even while a call holds the interpreter lock."""
    # The system signals SIGIO when the last writer has gone, and nothing is ever written; it ends a process by default.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _answer(answers: BinaryIO, **fields: Any) -> None:
    answers.write(json.dumps(fields).encode() + b"\n")
    answers.flush()


def main(lifeline: int) -> None:
    """Serve requests until the input ends, or the pipe `lifeline`."""
    # Ctrl-C goes to the whole foreground group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(lifeline)
    # What the user's code prints must not reach the parent's parser.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    run: Callable[[], object] | None = None
    while True:
        request = json.loads(requests.get())
        try:
            if run is None:
                sys.path[:] = request["path"]
                run = load_function(request["factory"])(*request["args"])
                if not callable(run):
                    raise TypeError(f"the factory returned {type(run).__name__}, not a callable")
                _answer(answers, ready=True)
                continue
            for _ in range(request["warm_up"]):
                run()
            seconds = time_calls(run, request["repeats"], resolve_clock(request["clock"]))
        except Exception as error:  # any failure of the user's code goes to the parent
            _answer(answers, error=f"{type(error).__name__}: {error}")
        else:
            _answer(answers, seconds=seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]))
