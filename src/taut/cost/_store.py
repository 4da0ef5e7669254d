"""The store of measurements: what this host has timed before."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

from taut._files import cache_directory
from taut.errors import ArtefactError, StorageError, VersionError
from taut.stats import fingerprint

try:
    import fcntl
except ImportError:  # not on this system, where a file in use cannot be renamed anyway
    fcntl = None

Record: TypeAlias = dict[str, object]
"""A measurement: a JSON object, e.g. `{"seconds": 1e-5, "calls": 4000}`."""

_APPLICATION = 0x74617574  # "taut", kept in the header of the file
_VERSION = 1
_WAIT_SECONDS = 30.0
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_log = logging.getLogger("taut.cost")
_T = TypeVar("_T")


class Store:
    """An append-only store of measurements, shared by the processes of one user.

    A measurement belongs to a key (see `taut.graph.cost_key`) and to a host, so that a cache directory on a shared
    file system never mixes machines. The file is SQLite with a write-ahead log: a process killed in the middle of a
    write loses that write and nothing else. Each call opens the file anew, hence a store may be used from any
    thread and after a fork.

    A file found corrupt is moved aside, not deleted, with a message to the log `taut.cost` that names both paths.

    Args:
        path: the file; by default `measurements.sqlite` in `cache_directory()`.
        host: the host that measures; by default this one, `taut.stats.fingerprint().key`.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, host: str | None = None) -> None:
        self.path = Path(path) if path is not None else cache_directory() / "measurements.sqlite"
        self.host = host if host is not None else fingerprint().key

    def append(self, records: Mapping[str, Mapping[str, object]]) -> None:
        """Add one measurement for each key, all of them or none.

        Raises:
            StorageError: the directory cannot be made or written, or the disk is full.
        """
        now = time.time()
        rows = [(self.host, key, json.dumps(dict(value), allow_nan=False), now) for key, value in records.items()]

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")  # closing without COMMIT takes everything back
            connection.executemany("INSERT INTO measurements (host, key, record, written) VALUES (?,?,?,?)", rows)
            connection.execute("COMMIT")

        if rows:
            self._run(insert)

    def latest(self, keys: Iterable[str]) -> dict[str, Record]:
        """The newest measurement of each key; keys never measured on this host are left out."""
        query = "SELECT record FROM measurements WHERE host = ? AND key = ? ORDER BY id DESC LIMIT 1"
        wanted = list(dict.fromkeys(keys))

        def select(connection: sqlite3.Connection) -> dict[str, Record]:
            rows = ((key, connection.execute(query, (self.host, key)).fetchone()) for key in wanted)
            return {key: _decode(row[0]) for key, row in rows if row is not None}

        return self._run(select) if wanted else {}

    def history(self, key: str) -> list[Record]:
        """Every measurement of a key on this host, oldest first."""
        query = "SELECT record FROM measurements WHERE host = ? AND key = ? ORDER BY id"

        def select(connection: sqlite3.Connection) -> list[Record]:
            return [_decode(row[0]) for row in connection.execute(query, (self.host, key))]

        return self._run(select)

    def _run(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            try:
                with self._open() as connection:
                    return action(connection)
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                self._move_aside(error)
                with self._open() as connection:
                    return action(connection)
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"the measurement store {self.path} could not be used: {error}",
                expected="a writable directory with free space",
                fix="free some space or set TAUT_CACHE to another directory",
            ) from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect()
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != _APPLICATION or version != _VERSION:
                with self._exclusive():  # changing the journal mode does not wait for other processes by itself
                    self._create(connection)
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()

    def _create(self, connection: sqlite3.Connection) -> None:
        """Lay out an empty file; refuse one that holds something else."""
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application == 0 and not tables:
            connection.execute(
                "CREATE TABLE measurements (id INTEGER PRIMARY KEY, host TEXT NOT NULL, key TEXT NOT NULL,"
                " record TEXT NOT NULL, written REAL NOT NULL)"
            )
            connection.execute("CREATE INDEX by_key ON measurements (host, key)")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif application != _APPLICATION:
            raise ArtefactError(
                f"{self.path} is a database of another program",
                expected="a measurement store of taut",
                fix="set TAUT_CACHE to another directory, or move the file away",
            )
        elif version > _VERSION:
            raise VersionError(
                f"{self.path} was written by a newer taut (store version {version}, this one reads {_VERSION})",
                fix="upgrade taut, or set TAUT_CACHE to another directory",
            )
        connection.execute("COMMIT")

    def _move_aside(self, reason: Exception) -> None:
        with self._exclusive():
            if self._is_sound():  # another process was here first
                return
            aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):  # the log of the old file must not be replayed into the new one
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(f"{aside}{suffix}")
        _log.warning("the measurement store %s is corrupt (%s); it was moved to %s and a new one begun",
                     self.path, reason, aside)  # fmt: skip

    def _is_sound(self) -> bool:
        try:
            with contextlib.closing(self._connect()) as connection:
                if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                    return False
                if connection.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
                    for row in connection.execute("SELECT record FROM measurements"):
                        _decode(row[0])
        except sqlite3.DatabaseError as error:
            if _is_corrupt(error):
                return False
            raise
        return True

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time; the system lets go if the process dies."""
        with self.path.with_name(self.path.name + ".lock").open("w") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _UnreadableRecordError(sqlite3.DatabaseError):
    """A record that is not a JSON object: the file was damaged within a row."""


def _decode(text: object) -> Record:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _UnreadableRecordError("a record is not a JSON object")
    return value


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    if isinstance(error, _UnreadableRecordError):
        return True
    if not hasattr(error, "sqlite_errorcode"):  # raised by Python's own layer, e.g. text that is not UTF-8
        return isinstance(error, sqlite3.OperationalError) and "decode" in str(error)
    return error.sqlite_errorcode & 0xFF in _CORRUPT
