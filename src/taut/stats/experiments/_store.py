"""The append-only log of a study's runs."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from taut._files import write_whole
from taut.errors import ArgumentError, ArtefactError, StorageError, VersionError
from taut.stats.experiments._experiment import Outcome

FORMAT = 1
_HEADER, _LOG = "study.json", "runs.jsonl"
_IDENTITY = ("study", "experiment", "seed")


class StudyStore:
    """The runs of one study: in memory, and in a folder if one is given.

    The folder holds `study.json`, which says what the study is, and `runs.jsonl`, to which every outcome is appended
    and flushed to the disk before the next one is taken. A last line that was cut short by a crash is dropped. One
    process may write at a time.

    Attributes:
        header: what `study.json` says.
        outcomes: by the run's identity; the last one where a run was repeated after a failure.
        runs: plain description of every run, by identity.
        roles: (part, repetition, replicate) to the run's identity.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.header: dict[str, Any] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.roles: dict[tuple[str, int, int], str] = {}
        self._file: BinaryIO | None = None

    @property
    def code(self) -> list[str]:
        """Fingerprints of the experiment's code at every call that opened the store; stores of old have none."""
        found = self.header.get("code")
        return [str(one) for one in found] if isinstance(found, list) else []

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a store without writing to it, even while another process does.

        Raises:
            ArtefactError: it is no store, or a line other than the last cannot be read.
            VersionError: it was written by a newer version.
        """
        store = cls(folder)
        store._read_header()
        store._read_log()
        return store

    @classmethod
    def open(cls, folder: Path, header: Mapping[str, Any]) -> Self:
        """Open for writing, and make the folder if there is none; use it as a context manager.

        Raises:
            ArgumentError: it belongs to another study.
            StorageError: it cannot be written, or another process is writing to it.
            ArtefactError: as `read`.
        """
        store = cls(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store._file = (folder / _LOG).open("a+b")
            fcntl.flock(store._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            store.close()
            raise StorageError(
                f"{folder}: another process is writing to this store", fix="wait for it, or choose another folder"
            ) from error
        except OSError as error:
            raise StorageError(
                f"{folder}: cannot be written ({error.strerror or error})", fix="choose another folder"
            ) from error
        try:
            if (folder / _HEADER).exists():
                store._read_header()
                store._check_same(header)
            elif store._file.tell():
                raise ArtefactError(f"{folder}: has runs but no {_HEADER}", fix="choose another folder")
            # Every version of the experiment's code that made runs, in their order.
            code = [*store.code, *(one for one in header.get("code", ()) if one not in store.code)]
            store.header = {"format": FORMAT, **header, "code": code}
            text = json.dumps(store.header, indent=2) + "\n"
            write_whole(folder / _HEADER, lambda path: path.write_text(text, encoding="utf-8"))
            # A line without its end was never finished: the next one must not be glued to it.
            store._file.truncate(store._read_log())
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End writing and give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def record(self, identity: str, run: Mapping[str, Any], outcome: Outcome) -> None:
        """Append the outcome of a run.

        Raises:
            StorageError: it cannot be written.
        """
        line = {
            "id": identity,
            **run,
            "score": outcome.score,
            "seconds": outcome.seconds,
            "error": outcome.error,
        }
        self._append([line])
        self.runs[identity], self.outcomes[identity] = dict(run), outcome

    def assign(self, roles: Iterable[tuple[tuple[str, int, int], str]]) -> None:
        """Say which run stands at which place of which part; what is known already is not written again.

        Raises:
            StorageError: it cannot be written.
        """
        new = [(role, identity) for role, identity in roles if self.roles.get(role) != identity]
        self._append([{"part": p, "repetition": r, "replicate": i, "is": identity} for (p, r, i), identity in new])
        self.roles.update(new)

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if self._file is None or not lines:
            return
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self.folder}: cannot be written ({error.strerror or error})",
                fix="free space on the disk and run the study again: it goes on where it stopped",
            ) from error

    def _check_same(self, header: Mapping[str, Any]) -> None:
        other = {name: self.header.get(name) for name in _IDENTITY if self.header.get(name) != header.get(name)}
        if other:
            ours = {name: header.get(name) for name in other}
            raise ArgumentError(
                "store",
                str(self.folder),
                expected=f"a new folder, or the store of this study: it has {other}, the study has {ours}",
                fix="choose another folder",
            )

    def _read_header(self) -> None:
        path = self._path(_HEADER)
        try:
            header = json.loads(path.read_bytes())
        except OSError as error:
            raise ArtefactError(
                f"{self.folder}: is not the store of a study (no {_HEADER})", fix="give the folder of taut study run"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ArtefactError(f"{path}: is not JSON") from error
        if not isinstance(header, dict) or not isinstance(header.get("format"), int):
            raise ArtefactError(f"{path}: does not describe a study")
        if header["format"] > FORMAT:
            raise VersionError(f"{path}: format {header['format']}", expected=f"up to {FORMAT}", fix="update taut")
        self.header = header

    def _read_log(self) -> int:
        """Take in the log; gives how many bytes of it are whole lines."""
        path = self._path(_LOG)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtefactError(f"{path}: cannot be read ({error.strerror or error})") from error
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
                raise ArtefactError(f"{path}: line {number} is damaged", fix="restore it from a copy") from error
        return whole

    def _take(self, line: dict[str, Any]) -> None:
        if "is" in line:
            repetition, replicate = int(line["repetition"]), int(line["replicate"])
            if min(repetition, replicate) < 0:
                raise ValueError("places are counted from 0")
            self.roles[str(line["part"]), repetition, replicate] = str(line["is"])
            return
        score = line["score"]
        if line["error"] is None:
            score = float(score)
            if not math.isfinite(score):
                raise ValueError("a score that is not finite stands as a failure")
        identity = str(line["id"])
        self.runs[identity] = {name: line[name] for name in ("phase", "hyperparameters", "seeds", "repeat")}
        self.outcomes[identity] = Outcome(score, float(line["seconds"]), line["error"])

    def _path(self, name: str) -> Path:
        return (self.folder or Path()) / name
