"""Mixed precision: which layer takes which scheme under a limit, from what each loses alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from taut.cost import Store
from taut.errors import ArgumentError, ArtefactError, EmptyChangeError, Interrupted, StorageError
from taut.graph import Graph
from taut.optimize._data import Dataset, spread
from taut.optimize._planner import stored_bytes
from taut.optimize._settings import Progress
from taut.transform import PASSES, assign, measure_sensitivity

FLOAT = "float32"
"""The scheme of a layer that stays as it is."""

_BATCHES = 8
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def check_limits(max_bits: float | None, max_bytes: int | str | None) -> tuple[str, float] | None:
    """Which limit the user gave, and its value."""
    if max_bits is not None and max_bytes is not None:
        raise ArgumentError("--max-bytes", max_bytes, expected="one of --max-bits and --max-bytes")
    if max_bits is not None:
        if not 1 <= max_bits <= 32:
            raise ArgumentError("--max-bits", max_bits, expected="bits a weight between 1 and 32")
        return "--max-bits", float(max_bits)
    return None if max_bytes is None else ("--max-bytes", parse_bytes(max_bytes))


def parse_bytes(text: int | str) -> int:
    """Read a number of bytes: 1500000, "1.5MB", "1.5 MiB".

    Raises:
        ArgumentError: it is none, or not positive.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]{0,3})\s*", str(text))
    if match is None or match[2].lower() not in _UNITS or float(match[1]) <= 0:
        raise ArgumentError("--max-bytes", text, expected='a number of bytes, such as 1500000, "1.5MB" or "1.5MiB"')
    return int(float(match[1]) * _UNITS[match[2].lower()])


def mix(
    graph: Graph,
    dataset: Dataset,
    names: tuple[str, ...],
    overrides: Mapping[str, str],
    skip: Sequence[str],
    limits: tuple[str, float],
    progress: Progress,
) -> tuple[list[str], dict[str, float]]:
    """The best scheme for each layer under the limit, and the measured error of each.

    Each measurement is written to the store of measurements at once, so that the same call goes on where it stopped.

    Args:
        graph: the float graph.
        dataset: what sensitivity is measured on, a few batches spread over it.
        names: the schemes to choose from.
        overrides: schemes that the user gave to module paths.
        skip: module paths whose layers stay.
        limits: as `check_limits` returns them.
        progress: told what is being measured.

    Returns:
        Assignments as "path=scheme", and the error of each layer by path.

    Raises:
        ArgumentError: no assignment keeps the limit; the message has the least one.
        Interrupted: on Ctrl-C; its `result` is the table so far.
    """
    try:
        table = measure_sensitivity(
            graph,
            [dataset.batches[index] for index in spread(dataset.batches, _BATCHES)],
            names,
            skip=[*skip, *overrides],
            store=_store(),
            progress=lambda doing, share: progress(f"measuring sensitivity: {doing}", share),
        )
    except Interrupted as error:
        error.fix = "run the same command again: it goes on from there"
        raise
    name, limit = limits
    floats = {entry.layer: entry.bytes for entry in table.entries if entry.scheme == FLOAT}
    weights = sum(floats.values())
    # What is not mixed takes what its own scheme gives it, not what the table counts for it.
    spared = stored_bytes(graph) - stored_bytes(overridden(graph, overrides, skip))
    rest = table.rest_bytes - spared
    budget = (limit if name == "--max-bytes" else rest + weights * limit / 32) + spared
    try:
        assignment = assign(table, budget=budget)
    except ArgumentError as error:
        least = rest + sum(min(e.bytes for e in table.entries if e.layer == layer) for layer in floats)
        shown = f"{least:,} bytes" if name == "--max-bytes" else f"{32 * (least - rest) / weights:.3f} bits"
        raise ArgumentError(
            name,
            int(limit) if name == "--max-bytes" else limit,
            expected=f"at least {shown}, which {names[0] if len(names) == 1 else 'the smallest of the schemes'} gives",
            fix="allow more, or add a smaller scheme with --format",
        ) from error
    errors = {e.layer: e.error for e in table.entries if assignment.schemes.get(e.layer) == e.scheme}
    return assignment.layers, errors


def overridden(graph: Graph, overrides: Mapping[str, str], skip: Sequence[str]) -> Graph:
    """The graph with the layers quantised that the user named; the others in float32."""
    try:
        return PASSES["quantise"].apply(graph, scheme=FLOAT, layers=pairs(overrides), skip=list(skip)).graph
    except EmptyChangeError:
        return graph


def pairs(layers: Mapping[str, str]) -> list[str]:
    """As the passes take schemes by path."""
    return [f"{path}={scheme}" for path, scheme in layers.items()]


def _store() -> Store | None:
    """Where measurements are kept; None where the cache cannot be used, in which case nothing is."""
    store = Store()
    try:
        store.latest(["sensitivity"])
    except (StorageError, ArtefactError):
        return None
    return store
