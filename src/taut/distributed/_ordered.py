"""One thread that does jobs in the order in which they come."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable

import torch


class Job:
    """A piece of work for the ordered thread.

    Args:
        work: what to do; it must not use this job.
        finish: what to do then, also where the work has failed or an earlier job had.
    """

    def __init__(self, work: Callable[[], object], finish: Callable[[], object]) -> None:
        self._calls: tuple[Callable[[], object], Callable[[], object]] | None = work, finish
        self._finished = threading.Event()
        self.error: BaseException | None = None

    def wait(self) -> None:
        """Wait until it is done.

        Raises:
            BaseException: what the work raised.
        """
        self._finished.wait()
        if self.error is not None:
            raise self.error

    def run(self, earlier: BaseException | None) -> BaseException | None:
        """Do it, unless an earlier job has failed; returns what it raised."""
        assert self._calls is not None
        self.error = earlier
        work, finish = self._calls
        self._calls = None
        try:
            try:
                if earlier is None:
                    with torch.no_grad():
                        work()
            finally:
                finish()
        except BaseException as error:
            self.error = error
        self._finished.set()
        return self.error


class OrderedThread:
    """Does jobs one after the other; after a failure every later job fails with the same error.

    Collectives that ranks issue in different orders mix up or hang, so all of a handle go through one such thread.
    It ends when nobody holds it any more.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def submit(self, work: Callable[[], object], finish: Callable[[], object] = lambda: None) -> Job:
        """Put work at the end of the queue; see `Job`."""
        job = Job(work, finish)
        self._jobs.put(job)
        return job


def _work(jobs: queue.SimpleQueue[Job | None]) -> None:
    failure: BaseException | None = None
    while (job := jobs.get()) is not None:
        failure = job.run(failure)
        del job
