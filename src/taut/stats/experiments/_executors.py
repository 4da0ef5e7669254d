"""Where the runs of a study are made: in this process, in several, or on Ray."""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from taut.errors import ArgumentError, MeasurementError, MissingExtraError
from taut.stats.experiments._experiment import Experiment, Outcome, Run, execute
from taut.stats.experiments._load import absolute_reference, check_reference, load_experiment
from taut.stats.experiments._threads import ONE_THREAD, single_thread

#: Makes runs and gives their outcomes as they come, each with its place among the runs.
Make = Callable[[list[Run]], Iterator[tuple[int, Outcome]]]


class Executor(Protocol):
    """A place where runs are made, each on one thread."""

    def session(self, experiment: Experiment) -> AbstractContextManager[Make]:
        """Workers that are ready while the context lasts."""
        ...


@dataclass(frozen=True)
class InProcess:
    """One run after another in this process."""

    @contextlib.contextmanager
    def session(self, experiment: Experiment) -> Iterator[Make]:
        """Nothing to start."""

        def make(runs: list[Run]) -> Iterator[tuple[int, Outcome]]:
            for index, run in enumerate(runs):
                yield index, execute(experiment, run)

        with single_thread():
            yield make


@dataclass(frozen=True)
class Processes:
    """Worker processes on this host; they end with this process, however it ends.

    Attributes:
        workers: how many.
        reference: where a worker finds the experiment: "path.py:name" or "module:name" of an experiment, of a study, or
            of a function without arguments that makes one.
    """

    workers: int
    reference: str

    def __post_init__(self) -> None:
        _check(self.workers, self.reference)

    @contextlib.contextmanager
    def session(self, experiment: Experiment) -> Iterator[Make]:
        """Start the workers; the last thing is to wait for what they are doing.

        Raises:
            MeasurementError: in the middle, if a worker dies.
        """
        pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _start_worker, (_search_path(),))
        remote = functools.partial(_make_remote, absolute_reference(self.reference), experiment.name)

        def make(runs: list[Run]) -> Iterator[tuple[int, Outcome]]:
            futures = {pool.submit(remote, run.to_dict()): index for index, run in enumerate(runs)}
            try:
                for future in as_completed(futures):
                    yield futures[future], _outcome(future.result())
            except BrokenProcessPool as error:
                raise MeasurementError(
                    "a worker process died; its runs are not recorded",
                    fix="use fewer workers if memory ran out; run the study again: it goes on where it stopped",
                ) from error

        # Workers start when they are first needed, with the environment of that moment.
        with single_thread():
            try:
                yield make
            finally:
                pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class RayWorkers:
    """Workers on Ray: a local cluster, or the one at `address` (needs the extra `study`).

    Attributes:
        workers: how many runs at a time.
        reference: as for `Processes`; every host of the cluster must find it.
        address: of a cluster, as `ray.init` takes it.
    """

    workers: int
    reference: str
    address: str | None = None

    def __post_init__(self) -> None:
        _check(self.workers, self.reference)

    @contextlib.contextmanager
    def session(self, experiment: Experiment) -> Iterator[Make]:
        """Connect, and disconnect at the end unless Ray was connected before.

        Raises:
            MissingExtraError: if Ray is not installed.
        """
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtraError("ray", extra="study", needed_for="RayWorkers") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone unless asked for
        connected = ray.is_initialized()
        if not connected:
            where: dict[str, Any] = {"num_cpus": self.workers} if self.address is None else {"address": self.address}
            ray.init(**where, include_dashboard=False, log_to_driver=False, configure_logging=False)
        task: Any = ray.remote(num_cpus=1, max_retries=2, runtime_env={"env_vars": ONE_THREAD})(_make_remote)
        reference, path = absolute_reference(self.reference), _search_path()

        def make(runs: list[Run]) -> Iterator[tuple[int, Outcome]]:
            left = iter(enumerate(runs))
            waiting: dict[Any, int] = {}
            while True:
                # A few more than there are workers, so that none waits for us; the rest stays here.
                while len(waiting) < 2 * self.workers and (following := next(left, None)) is not None:
                    index, run = following
                    waiting[task.remote(reference, experiment.name, run.to_dict(), path)] = index
                if not waiting:
                    return
                (done, *_), _ = ray.wait(list(waiting), num_returns=1)
                try:
                    outcome = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise MeasurementError(f"a Ray worker failed: {error.cause or error}") from error
                except ray.exceptions.RayError as error:
                    raise MeasurementError(
                        f"a Ray worker was lost: {type(error).__name__}",
                        fix="run the study again: it goes on where it stopped",
                    ) from error
                yield waiting.pop(done), _outcome(outcome)

        try:
            yield make
        finally:
            if not connected:
                ray.shutdown()


def _make_remote(reference: str, name: str, run: dict[str, Any], path: Iterable[str] = ()) -> Outcome | str:
    """Runs in a worker; gives a text where it cannot even start, because taut's errors do not travel whole."""
    try:
        experiment = _loaded(reference, tuple(path))
    except (Exception, SystemExit) as error:
        return f"a worker cannot load {reference}: {error}"
    if experiment.name != name:
        return f"{reference} is the experiment {experiment.name!r} in a worker, here it is {name!r}"
    return execute(experiment, Run.from_dict(run))


def _outcome(answer: Outcome | str) -> Outcome:
    if isinstance(answer, str):
        raise MeasurementError(answer, fix="give the reference of the study's own experiment")
    return answer


@functools.cache
def _loaded(reference: str, path: tuple[str, ...]) -> Experiment:
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    return load_experiment(reference)


def _start_worker(path: list[str]) -> None:
    sys.path[:] = path
    # Ctrl-C goes to the whole foreground group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A parent that is killed cannot tell its workers, and they hold both ends of their queue.
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _search_path() -> list[str]:
    return [entry or str(Path.cwd()) for entry in sys.path]


def _check(workers: int, reference: str) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ArgumentError("workers", workers, expected="a whole number from 1")
    check_reference(reference)
