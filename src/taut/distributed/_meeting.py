"""Where threads wait for each other, and learn that one of them will not come."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from taut.errors import CommunicationError


class Meeting:
    """A barrier for the ranks of a group of threads; unlike that of `threading` it knows who is missing, and why.

    Args:
        ranks: of the group.
        timeout: seconds that a rank waits for the others.
    """

    def __init__(self, ranks: int, timeout: float) -> None:
        self._condition = threading.Condition()
        self._missing = set(range(ranks))
        self._ranks = ranks
        self._timeout = min(timeout, threading.TIMEOUT_MAX)
        self._held = 0  # meetings that all have come to
        self._gone: dict[int, BaseException | None] = {}
        self._late: set[int] = set()

    def wait(self, rank: int) -> None:
        """Wait until every rank has come.

        Raises:
            CommunicationError: one has gone already, or does not come within the time-out.
        """
        with self._condition:
            if self._gone or self._late:
                raise self._failure(rank)
            meeting = self._held
            self._missing.discard(rank)
            if not self._missing:
                self._missing = set(range(self._ranks))
                self._held += 1
                self._condition.notify_all()
                return
            self._condition.wait_for(lambda: self._held > meeting or self._gone or self._late, self._timeout)
            if self._held > meeting:
                return
            if not self._gone:
                self._late = set(self._missing)
                self._condition.notify_all()
            raise self._failure(rank)

    def leave(self, rank: int, error: BaseException | None) -> None:
        """A rank comes to no further meeting: it has returned, or raised an error."""
        with self._condition:
            self._gone[rank] = error
            self._condition.notify_all()

    def wait_for_end(self) -> BaseException | None:
        """Wait until every rank has left, but for those that did not come in time; returns the first error, if any.

        After an error the others get the time-out to end.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._ended() or self._error() is not None)
            self._condition.wait_for(self._ended, self._timeout)
            error = self._error()
            if error is None and self._late - self._gone.keys():
                return self._came_late()  # those that waited in vain have returned all the same
            return error

    def _ended(self) -> bool:
        return len(self._gone.keys() | self._late) == self._ranks

    def _error(self) -> BaseException | None:
        """The first that a rank has raised: those of ranks that waited in vain come after that of their reason."""
        return next((error for error in self._gone.values() if error is not None), None)

    def _failure(self, rank: int) -> CommunicationError:
        if self._gone:
            other, error = next(iter(self._gone.items()))
            happened = "has returned" if error is None else f"has failed ({error})"
            return _failed(f"rank {other} {happened}, and rank {rank} waits for it in a collective operation")
        if rank in self._late:
            return self._came_late()
        late = _listed(self._late)
        return _failed(f"rank {rank} has waited {self._timeout:g} s in a collective operation for rank {late}")

    def _came_late(self) -> CommunicationError:
        return _failed(f"rank {_listed(self._late)} did not come to a collective operation within {self._timeout:g} s")


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))


def _failed(message: str) -> CommunicationError:
    return CommunicationError(message, expected="the same calls in the same order on every rank")
