"""What a checkpoint holds of an exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from taut.distributed._compressor import Memory
from taut.distributed._exchange import Exchange
from taut.distributed._memory import OF_EACH_RANK
from taut.errors import ArgumentError, ArtefactError, VersionError

_VERSION = 1
_KEYS = {"version", "rank", "ranks", "memory", "levels", "controller", "steps", "sent", "dense"}


def save(exchange: Exchange) -> dict[str, Any]:
    """The state of one rank: tensors, numbers, strings and dictionaries of them."""
    return {
        "version": _VERSION,
        "rank": exchange.communicator.rank,
        "ranks": exchange.communicator.size,
        "memory": _cloned(exchange.memory),
        "levels": dict(exchange.levels),
        "controller": exchange.controller.state_dict() if exchange.controller is not None else None,
        "steps": exchange.steps,
        "sent": exchange.communicator.sent,
        "dense": exchange.dense,
    }


def load(exchange: Exchange, state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    """Take up the state of this rank, or one averaged over all ranks; nothing is changed if it does not fit.

    Raises:
        ArtefactError: it is no such state, or of other parameters.
        ArgumentError: it is that of another rank, or of a job of another size.
    """
    _check(exchange, state, shapes)
    if exchange.controller is not None:
        exchange.controller.load_state_dict(state["controller"])
    exchange.memory.clear()
    exchange.memory.update(_cloned(state["memory"]))
    exchange.levels.update(state["levels"])
    exchange.steps = state["steps"]
    exchange.communicator.sent = state["sent"]
    exchange.dense = state["dense"]


def average_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state out of those of all ranks, which a job of any size may take up, the same on each rank.

    What is pending survives: with the mean residual on each new rank, the mean over ranks is what it was.

    Args:
        states: `handle.state_dict()` of each rank.

    Raises:
        ArgumentError: not the states of all ranks of one job.
    """
    ranks = [state.get("rank") for state in states]
    if not states or ranks != list(range(len(states))) or any(state["ranks"] != len(states) for state in states):
        raise ArgumentError("states", ranks, expected="the state of each rank of one job, in the order of the ranks")
    first = states[0]
    memory: Memory = _cloned(first["memory"])
    for name in {name for state in states for name in state["memory"]}:
        kept = memory.setdefault(name, {})
        for quantity in OF_EACH_RANK:
            tensors = [state["memory"].get(name, {}).get(quantity) for state in states]
            present = [tensor for tensor in tensors if tensor is not None]
            if present:
                kept[quantity] = torch.stack(present).sum(dim=0) / len(states)
    return {**first, "rank": None, "ranks": None, "memory": memory}


def _check(exchange: Exchange, state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    if not isinstance(state, Mapping) or not set(state) >= _KEYS or not _well_formed(state):
        raise ArtefactError("this is no state of a gradient exchange", expected="what handle.state_dict() gave")
    if state["version"] > _VERSION:
        raise VersionError(
            f"the state has version {state['version']}", expected=f"at most {_VERSION}", fix="install a newer taut"
        )
    own = (exchange.communicator.rank, exchange.communicator.size)
    theirs = (state["rank"], state["ranks"])
    if theirs not in (own, (None, None)):
        raise ArgumentError(
            "state",
            f"that of rank {theirs[0]} of {theirs[1]}",
            expected=f"that of rank {own[0]} of {own[1]}: residuals belong to a rank",
            fix="save and load one state for each rank; for a job of another size, average_states() of all of them",
        )
    for name, kept in state["memory"].items():
        for quantity in OF_EACH_RANK & set(kept):
            if shapes.get(name) != kept[quantity].shape:
                raise ArtefactError(
                    f"the state holds a {quantity} of shape {tuple(kept[quantity].shape)} for {name}",
                    expected=f"{tuple(shapes[name])}" if name in shapes else "parameters of this module",
                )
    unknown = set(state["levels"]) - set(exchange.levels)
    beyond = [level for level in state["levels"].values() if level not in range(len(exchange.compressors))]
    if unknown or beyond:
        raise ArtefactError(
            f"the state has levels of {sorted(unknown) or beyond}, which this exchange does not have",
            fix="attach with the compressors that the state was saved with",
        )
    if exchange.controller is not None and state["controller"] is None:
        raise ArtefactError("the state has no controller, and this exchange has one")


def _well_formed(state: Mapping[str, Any]) -> bool:
    memory = state["memory"]
    tensors = isinstance(memory, Mapping) and all(
        isinstance(kept, Mapping) and all(isinstance(tensor, torch.Tensor) for tensor in kept.values())
        for kept in memory.values()
    )
    numbers = all(isinstance(state[key], int | float) for key in ("version", "steps", "sent", "dense"))
    return tensors and numbers and isinstance(state["levels"], Mapping)


def _cloned(memory: Mapping[str, Mapping[str, torch.Tensor]]) -> Memory:
    return {name: {key: tensor.clone() for key, tensor in kept.items()} for name, kept in memory.items()}
