"""Checkpoints of an exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exchanges import exchange, random_gradients

from taut.distributed import Compressor, Gradient, LocalCommunicator, PowerSGD, TopK, average_states, run_ranks
from taut.distributed._exchange import Exchange
from taut.distributed._memory import residual_of
from taut.distributed._state import load, save
from taut.errors import ArgumentError, ArtefactError, TautError, VersionError

SHAPES = {"p0": torch.Size((8, 12)), "p1": torch.Size((30,))}


def states(ranks: int, compressor: Compressor, steps: int = 3) -> list[dict[str, Any]]:
    def work(communicator: LocalCommunicator) -> dict[str, Any]:
        whole = Exchange(list(SHAPES), [compressor], None, communicator)
        for step in range(steps):
            own = random_gradients(ranks, tuple(map(tuple, SHAPES.values())), seed=step)[communicator.rank]
            whole([Gradient(name, tensor) for name, tensor in own.items()])
        return save(whole)

    return run_ranks(ranks, work)


def load_as(rank: int, ranks: int, state: Any, shapes: dict[str, torch.Size] = SHAPES) -> Exchange:
    def work(communicator: LocalCommunicator) -> Exchange:
        taken = Exchange(list(shapes), [TopK(0.1)], None, communicator)
        if communicator.rank == rank:
            load(taken, state, shapes)
        return taken

    return run_ranks(ranks, work)[rank]


def test_a_state_is_read_back_without_pickled_objects(tmp_path: Path) -> None:
    (state, _) = states(2, TopK(0.1))
    torch.save(state, tmp_path / "state.pt")
    read = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.testing.assert_close(read, state, rtol=0, atol=0)


def test_a_state_is_a_copy() -> None:
    (state, _) = states(2, TopK(0.1))
    taken = load_as(0, 2, state)
    taken.memory["p0"]["residual"].zero_()
    assert state["memory"]["p0"]["residual"].any()


@pytest.mark.parametrize("compressor", [TopK(0.1), PowerSGD(1)])
@pytest.mark.parametrize("new_size", [1, 3, 4])
def test_what_is_pending_survives_a_change_of_the_number_of_ranks(compressor: Compressor, new_size: int) -> None:
    old = states(2, compressor)
    merged = average_states(old)
    pending = torch.stack([state["memory"]["p0"]["residual"] for state in old]).mean(dim=0)
    new = [load_as(rank, new_size, merged) for rank in range(new_size)]
    after = torch.stack([taken.memory["p0"]["residual"] for taken in new]).mean(dim=0)
    torch.testing.assert_close(after, pending)
    if isinstance(compressor, PowerSGD):
        assert torch.equal(new[0].memory["p0"]["right factor"], old[0]["memory"]["p0"]["right factor"])


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != key}


def test_states_that_do_not_fit_are_refused_and_change_nothing() -> None:
    first, second = states(2, TopK(0.1))
    wrong: list[tuple[Any, type[TautError]]] = [
        (second, ArgumentError),
        ({**first, "ranks": 4}, ArgumentError),
        (without(first, "memory"), ArtefactError),
        ({**first, "version": 2}, VersionError),
        ({**first, "levels": {"p0": 1}}, ArtefactError),
        ({**first, "levels": {"other": 0}}, ArtefactError),
        ({**first, "memory": {"p0": {"residual": torch.zeros(3)}}}, ArtefactError),
        ({**first, "memory": {"p9": {"residual": torch.zeros(3)}}}, ArtefactError),
        ({**first, "memory": {"p0": {"residual": "text"}}}, ArtefactError),
        ({**first, "memory": [1]}, ArtefactError),
        ({**first, "steps": "many"}, ArtefactError),
        ({**first, "version": "1"}, ArtefactError),
        ("nothing", ArtefactError),
        (None, ArtefactError),
    ]
    for state, kind in wrong:
        with pytest.raises(kind):
            load_as(0, 2, state)


def test_only_all_states_of_one_job_are_averaged() -> None:
    first, second = states(2, TopK(0.1))
    for chosen in ([], [first], [second, first], [first, first]):
        with pytest.raises(ArgumentError):
            average_states(chosen)


def test_a_residual_of_another_shape_starts_anew() -> None:
    memories = [{"p0": {"residual": torch.ones(3)}}, {"p0": {"residual": torch.ones(3)}}]
    exchange(TopK(0.1), random_gradients(2, shapes=((5, 5),)), memories)
    assert memories[0]["p0"]["residual"].shape == (5, 5)


def test_an_error_of_one_rank_of_threads_ends_the_others() -> None:
    def work(communicator: LocalCommunicator) -> None:
        if communicator.rank == 1:
            raise ValueError("no")
        communicator.all_reduce(torch.zeros(1))

    with pytest.raises(ValueError, match="no"):
        run_ranks(3, work)


def test_a_residual_that_was_read_on_another_device_follows_the_gradient() -> None:
    memory = {"p": {"residual": torch.ones(3)}}
    assert residual_of(Gradient("p", torch.zeros(3, device="meta")), memory).device.type == "meta"
    assert memory["p"]["residual"].device.type == "meta"
