"""Ranks that are threads or processes of this host: one that leaves early or comes late is an error, never a hang."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch

from taut.distributed import LinkLab, LocalCommunicator, LocalRanks, run_ranks
from taut.distributed._meeting import Meeting
from taut.errors import ArgumentError, CommunicationError


def reduced(communicator: LocalCommunicator) -> float:
    tensor = torch.ones(3)
    communicator.all_reduce(tensor)
    return float(tensor.sum())


@pytest.mark.parametrize("gone", range(3))
def test_a_rank_that_returns_early_is_an_error_on_those_that_wait(gone: int) -> None:
    def work(communicator: LocalCommunicator) -> float:
        return 0.0 if communicator.rank == gone else reduced(communicator)

    with pytest.raises(CommunicationError, match=f"rank {gone} has returned, and rank . waits for it"):
        run_ranks(3, work)


def test_a_rank_that_makes_fewer_calls_is_an_error_on_the_others() -> None:
    def work(communicator: LocalCommunicator) -> list[float]:
        return [reduced(communicator) for _ in range(5 - communicator.rank)]

    with pytest.raises(CommunicationError, match="the same calls in the same order"):
        run_ranks(2, work)


def test_ranks_that_leave_after_the_last_call_disturb_nobody() -> None:
    for ranks in (1, 2, 5):
        for _ in range(50):
            assert run_ranks(ranks, reduced) == [3.0 * ranks] * ranks


def test_a_rank_that_does_not_come_is_an_error_after_the_time_out() -> None:
    never = threading.Event()

    def work(communicator: LocalCommunicator) -> float:
        if communicator.rank == 1:
            never.wait()
        return reduced(communicator)

    with pytest.raises(CommunicationError, match=r"has waited 0.2 s in a collective operation for rank 1\n"):
        run_ranks(3, work, timeout=0.2)
    never.set()


def test_a_rank_that_comes_too_late_is_told_so() -> None:
    meeting = Meeting(2, 0.01)
    with pytest.raises(CommunicationError, match="rank 0 has waited"):
        meeting.wait(0)
    with pytest.raises(CommunicationError, match="rank 1 did not come"):
        meeting.wait(1)


def test_a_rank_without_result_is_an_error_where_the_others_go_on_without_it() -> None:
    never = threading.Event()

    def work(communicator: LocalCommunicator) -> float:
        if communicator.rank == 1:
            never.wait()
        with contextlib.suppress(CommunicationError):
            return reduced(communicator)
        return 0.0

    with pytest.raises(CommunicationError, match="rank 1 did not come"):
        run_ranks(2, work, timeout=0.1)
    never.set()


def test_the_first_error_of_a_rank_is_raised_and_ends_the_others() -> None:
    ended: list[int] = []

    def work(communicator: LocalCommunicator) -> None:
        try:
            if communicator.rank == 1:
                raise ValueError("rank one cannot")
            while True:
                reduced(communicator)
        finally:
            ended.append(communicator.rank)

    with pytest.raises(ValueError, match="rank one cannot"):
        run_ranks(3, work)
    assert sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize(("ranks", "timeout"), [(0, 1.0), (1.5, 1.0), (2, 0.0), (2, float("nan"))])
def test_numbers_that_cannot_be_are_refused(ranks: int, timeout: float) -> None:
    with pytest.raises(ArgumentError, match=r"ranks|timeout"):
        run_ranks(ranks, reduced, timeout=timeout)


def test_ranks_that_were_never_started_can_be_closed() -> None:
    ranks = LocalRanks(2)
    ranks.close()
    ranks.close()
    LinkLab(2).__exit__(None, None, None)
