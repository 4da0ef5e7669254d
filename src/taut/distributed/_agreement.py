"""Comparing the configuration of the ranks before anything depends on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch

from taut.distributed._communicator import Communicator
from taut.errors import ArgumentError, CommunicationError, TautError

_REFUSED = "refused"


def agree(configuration: Mapping[str, str], refusal: TautError | None, communicator: Communicator) -> None:
    """Compare what the ranks are set to; called on all of them.

    Args:
        configuration: settings as text, by name.
        refusal: why this rank cannot take part, if so.
        communicator: the ranks.

    Raises:
        TautError: `refusal` itself.
        CommunicationError: another rank refused.
        ArgumentError: settings differ; both values are in the message, on every rank.
    """
    told = {_REFUSED: str(refusal)} if refusal is not None else dict(configuration)
    text = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    ranks = [json.loads(bytes(theirs.tolist())) for theirs in communicator.all_gather_uneven(text)]
    if refusal is not None:
        raise refusal
    for rank, theirs in enumerate(ranks):
        if _REFUSED in theirs:
            raise CommunicationError(f"rank {rank} cannot take part: {theirs[_REFUSED]}")
    for name in ranks[0]:
        _compare(name, [theirs.get(name) for theirs in ranks])


def _compare(name: str, values: Sequence[str | None]) -> None:
    for rank, value in enumerate(values):
        if value != values[0]:
            raise ArgumentError(
                name,
                f"rank 0: {values[0]}, rank {rank}: {value}",
                expected="the same on all ranks",
                fix="start all ranks with the same script and the same arguments",
            )
