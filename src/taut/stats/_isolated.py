"""An arm in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from taut.errors import ArgumentError, MeasurementError
from taut.stats._clock import Clock

_ERROR_LINES = 3


class IsolatedArm:
    """A callable that is built and timed in a child process, e.g. under other OpenMP settings (POSIX systems only).

    Use it as a context manager: the child lives from entering to leaving. Two processes differ in the placement of
    their memory, and idle OpenMP workers of one may spin into the time of the other (set OMP_WAIT_POLICY=PASSIVE), so
    prefer arms in one process where both can live in one.

    Args:
        factory: builds the callable to be timed: "module:function", "path.py:function", or a function at the top level
            of a module.
        args: of the factory; plain JSON values, because they travel to the child as such.
        env: environment variables to set for the child; None removes one.
        name: how messages call the arm.

    Raises:
        ArgumentError: if the factory cannot be named to another process, or `args` are not plain values.
    """

    needs_warm_up = False

    def __init__(
        self,
        factory: str | Callable[..., Callable[[], object]],
        *args: Any,
        env: Mapping[str, str | None] | None = None,
        name: str = "",
    ) -> None:
        self._reference = _reference(factory)
        self.name = name or self._reference
        try:
            json.dumps(args)
        except (TypeError, ValueError) as error:
            raise ArgumentError("args", args, expected="plain values: numbers, strings, lists, dictionaries") from error
        self._args = args
        changes = dict(env or {})
        self._environment = {key: value for key, value in {**os.environ, **changes}.items() if value is not None}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        end_of_child, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "taut.stats._worker", str(end_of_child)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=self._environment,
                pass_fds=(end_of_child,),
            )
        finally:
            os.close(end_of_child)
        try:
            # The first entry of the path is the child's own; an empty one is the folder that we are in.
            path = [entry or str(Path.cwd()) for entry in sys.path]
            self._request({"factory": self._reference, "args": self._args, "path": path})
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process; nothing happens if there is none."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.wait()
        os.close(self._lifeline)
        for stream in (process.stdin, process.stdout, self._errors):
            if stream is not None:
                _close_quietly(stream)

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        """Seconds that `repeats` calls take together in the child, read from its clock of the same name.

        Raises:
            MeasurementError: if the callable raises, the child has died, or the arm has not been entered.
        """
        return float(self._request({"repeats": repeats, "warm_up": warm_up, "clock": clock.name})["seconds"])

    def _request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise MeasurementError(
                f"{self.name}: its process is not running", fix="use the arm inside a `with` statement"
            )
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        except BaseException:
            # The answer to an interrupted request would be taken for the answer to the next one.
            self.close()
            raise
        if not line:
            code = process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()[-_ERROR_LINES:]
            ending = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise MeasurementError("\n".join([f"{self.name}: its process {ending}", *said]))
        answer = json.loads(line)
        if "error" in answer:
            raise MeasurementError(f"{self.name} raised {answer['error']}")
        return answer


def _close_quietly(stream: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # unsent bytes for a child that is gone
        stream.close()


def _reference(factory: str | Callable[..., Any]) -> str:
    """How another process finds the factory."""
    expected = 'a top-level function, "module:function" or "path.py:function"'
    if isinstance(factory, str):
        place, _, name = factory.rpartition(":")
        if not place or not name:
            raise ArgumentError("factory", factory, expected=expected)
        return factory
    name, module = getattr(factory, "__qualname__", ""), getattr(factory, "__module__", "")
    if not name or "<" in name:
        raise ArgumentError("factory", factory, expected=expected)
    if module == "__main__":
        path = getattr(sys.modules["__main__"], "__file__", None)
        if path is None:
            raise ArgumentError("factory", factory, expected=expected, fix="move the function into a file")
        return f"{Path(path).resolve()}:{name}"
    return f"{module}:{name}"
