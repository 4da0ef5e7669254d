"""Ranks that stop: an error within the time-out, never a hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import run_processes
from scenarios import error_of
from training import batches, loss_of, network, wrap

from taut.distributed import TopK, attach, gather_uneven

SECONDS = 4.0


def stopped(rank: int) -> tuple[str, str] | None:
    """The second rank stops in the middle, with its connections open; the first one kills it in the end."""
    others = torch.tensor([os.getpid() if rank == 1 else 0])
    dist.all_reduce(others)
    model = wrap(network(), broadcast_buffers=False)
    attach(model, TopK(0.1))

    def steps() -> None:
        for step, batch in enumerate(batches(rank, 4)):
            if step == 2 and rank == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            loss_of(model(batch)).backward()

    found = error_of(steps)
    os.kill(int(others), signal.SIGKILL)
    return found


def absent(rank: int) -> tuple[str, str] | None:
    """Only the first rank attaches."""
    model = wrap(network())
    return error_of(lambda: attach(model, TopK(0.1))) if rank == 0 else None


def dying(rank: int) -> tuple[str, str] | None:
    """The last rank dies between two exchanges, at a time of its own."""

    def exchanges() -> None:
        for step in range(2000):
            if step == 1000 and rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            found = gather_uneven(torch.full((step,), rank))
            assert all((theirs == other).all() for other, theirs in enumerate(found))

    return error_of(exchanges)


@pytest.mark.slow
def test_ranks_that_share_memory_learn_at_once_that_one_has_died(tmp_path: Path) -> None:
    first, second, killed = run_processes(3, dying, tmp_path, time_out=3600.0)
    assert killed is None
    assert first is not None
    assert second is not None
    assert {first[0], second[0]} == {"CommunicationError"}
    # One may hear of the dead rank from the other, which left for its sake.
    assert "rank 2 has died" in first[1] + second[1]


@pytest.mark.slow
def test_a_rank_that_stands_still_is_an_error_after_the_time_out(tmp_path: Path) -> None:
    found, killed = run_processes(2, stopped, tmp_path, time_out=SECONDS)
    assert killed is None
    kind, text = found
    assert kind == "CommunicationError"
    assert "Timed out" in text or "timed out" in text


@pytest.mark.slow
def test_a_rank_that_does_not_attach_is_an_error_on_the_others(tmp_path: Path) -> None:
    kind, text = run_processes(2, absent, tmp_path, time_out=SECONDS)[0]
    assert kind == "CommunicationError"
    assert "call attach on every rank" in text
