"""How the control-flow operations run their regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Region = Callable[[Sequence[Any]], list[Any]]


def _cond(regions: Sequence[Region], predicate: Any, operands: Sequence[Any]) -> list[Any]:
    return regions[0 if bool(predicate) else 1](operands)


def _while_loop(regions: Sequence[Region], carried: Sequence[Any], additional: Sequence[Any] = ()) -> Sequence[Any]:
    condition, body = regions
    while bool(condition([*carried, *additional])[0]):
        carried = body([*carried, *additional])
    return carried


def _scan(
    regions: Sequence[Region], init: Sequence[Any], xs: Sequence[torch.Tensor], additional: Sequence[Any] = ()
) -> list[Any]:
    (combine,) = regions
    carried = list(init)
    collected: list[list[Any]] = []
    for index in range(xs[0].shape[0]):
        results = combine([*carried, *(x[index] for x in xs), *additional])
        carried = results[: len(carried)]
        collected.append(results[len(carried) :])
    return [*carried, *(torch.stack(column) for column in zip(*collected, strict=True))]


def _associative_scan(
    regions: Sequence[Region], xs: Sequence[torch.Tensor], additional: Sequence[Any] = ()
) -> list[Any]:
    """Log-depth prefix combination (Hillis and Steele, Data Parallel Algorithms, 1986) over dimension 0."""
    (combine,) = regions
    current = list(xs)
    length, distance = current[0].shape[0], 1
    while distance < length:
        earlier = [x[: length - distance] for x in current]
        later = [x[distance:] for x in current]
        combined = combine([*earlier, *later, *additional])
        current = [torch.cat([x[:distance], y]) for x, y in zip(current, combined, strict=True)]
        distance *= 2
    return current


def _map(regions: Sequence[Region], xs: Sequence[torch.Tensor], additional: Sequence[Any] = ()) -> list[torch.Tensor]:
    rows = [regions[0]([*(x[index] for x in xs), *additional]) for index in range(xs[0].shape[0])]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _invoke_subgraph(regions: Sequence[Region], operands: Sequence[Any]) -> list[Any]:
    return regions[0](operands)


CONTROL_FUNCTIONS: dict[str, Callable[..., Sequence[Any]]] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
    "associative_scan": _associative_scan,
    "map": _map,
    "invoke_subgraph": _invoke_subgraph,
}
"""By operation; each takes its regions, then the node's arguments, and returns one value an output."""
