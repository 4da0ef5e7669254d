"""Halide's runtime, which every library of kernels holds: generated once for a host, while other work goes on."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path

from taut.codegen._store import identity, intact, keep
from taut.codegen._workers import generate_all
from taut.errors import BuildError

_under_way: dict[Path, Future[None]] = {}
_lock = threading.Lock()


def runtime_path(folder: Path, target: str) -> Path:
    """Where a cache keeps the runtime's object file for a target."""
    return folder / f"runtime-{identity([], target)}.o"


def start_runtime(folder: Path, target: str, timeout: float) -> Future[None]:
    """Begin to generate the runtime in a process of its own, unless it is kept or under way.

    Args:
        folder: the cache; it must be there.
        target: the Halide target.
        timeout: seconds that it may take.

    Returns:
        What is done when the file is there. It fails with a BuildError, or an OSError where nothing can be written.
    """
    path = runtime_path(folder, target)
    with _lock:
        known = _under_way.get(path)
        if known is not None and not known.done():
            return known
        started: Future[None] = Future()
        if intact(path):
            started.set_result(None)
        else:
            _under_way[path] = started
            threading.Thread(target=_generate, args=(started, path, target, timeout)).start()
        return started


def _generate(started: Future[None], path: Path, target: str, timeout: float) -> None:
    failed: list[str] = []

    def done(_: int, outcome: float | str) -> None:
        if isinstance(outcome, str):
            failed.append(outcome)

    try:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as work:
            made = Path(work) / "runtime.o"
            generate_all([{"object": str(made)}], target=target, workers=1, timeout=timeout, done=done)
            if failed:
                fix = "reinstall the package halide"
                raise BuildError(f"Halide's runtime could not be generated: {failed[0]}", fix=fix)
            keep(made, path)
    except BaseException as error:  # raised where it is waited for
        started.set_exception(error)
    else:
        started.set_result(None)
