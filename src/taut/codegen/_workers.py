"""A few worker processes that generate object files side by side; a job that crashes or hangs costs only itself."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

_COMMAND = (sys.executable, "-P", "-m", "taut.codegen._worker")
_TAIL = 400  # characters of a dead worker's output that are reported


def generate_all(
    jobs: Sequence[dict[str, Any]],
    *,
    target: str,
    workers: int,
    timeout: float,
    done: Callable[[int, float | str], None],
) -> None:
    """Run the jobs (see `taut.codegen._worker`).

    Args:
        jobs: what to generate.
        target: the Halide target.
        workers: how many processes at most.
        timeout: seconds that one job may take.
        done: called from one thread at a time with the number of a finished job, and its seconds or why it failed.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(jobs)):
        waiting.put(number)
    lock = threading.Lock()
    crew = [_Worker(target) for _ in range(min(workers, len(jobs)))]
    stopped = threading.Event()
    raised: list[BaseException] = []

    def stop() -> None:
        stopped.set()
        for worker in crew:
            worker.kill(for_good=True)

    def serve(worker: _Worker) -> None:
        while not stopped.is_set():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            outcome = worker.run(jobs[number], timeout)
            try:
                with lock:
                    if not stopped.is_set():
                        done(number, outcome)
            except BaseException as error:  # goes on in the caller's thread
                raised.append(error)
                stop()

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in crew]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        for worker in crew:
            worker.close()
    if raised:
        raise raised[0]


class _Worker:
    """One process, started at its first job and again after it died."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self._ended = False
        self._lock = threading.Lock()

    def run(self, job: dict[str, Any], timeout: float) -> float | str:
        """The seconds that the job took, or why it failed."""
        process = self._start()
        if process is None:
            return "interrupted"
        assert process.stdin is not None and process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer = json.loads(line)
            return answer["failed"] if "failed" in answer else answer["seconds"]
        status = process.wait()
        said = self._said()
        self.close()
        if expired.is_set():
            return f"took longer than {timeout:g} s"
        return f"the generator died with status {status}" + (f": {said}" if said else "")

    def _start(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._ended:
                return None
            if self._process is None:
                root = str(Path(__file__).resolve().parents[2])
                path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
                self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
                self._process = subprocess.Popen(
                    [*_COMMAND, self._target],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                    encoding="utf-8",
                    env={**os.environ, "PYTHONPATH": path},
                )
            return self._process

    def _said(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return " ".join(self._errors.read().split())[-_TAIL:]

    def kill(self, *, for_good: bool) -> None:
        """End the process at once; `for_good`, none is started any more."""
        with self._lock:
            self._ended = self._ended or for_good
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process and release what belongs to it; only while no job runs."""
        self.kill(for_good=False)
        if self._process is not None:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if self._errors is not None:
            self._errors.close()
        self._process = self._errors = None
