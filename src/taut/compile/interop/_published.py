"""The schedules that the IOS project publishes for Inception-v3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from taut.compile.interop._graph import Convolution, Operator, OperatorGraph
from taut.compile.interop._randwire import read_limited
from taut.compile.interop._types import Schedule, Stage
from taut.errors import ArtefactError, GraphError

LARGEST = 1 << 31
NO_ACTIVATION = "identity"


@dataclass(frozen=True)
class Slice:
    """Channels `begin` to `end` of the value called `source`."""

    source: str
    begin: int
    end: int


@dataclass(frozen=True)
class ScheduledBlock:
    """A block of a network with its schedule.

    Attributes:
        entry: the name of the value that enters the block.
        graph: the operators of the block, its exit last. Attributes of an operator: `inputs`, a tuple of terms to
            concatenate, each a tuple of `Slice` to add; `output_shape` (channels, height, width); `merged`, the names
            of the operators that it replaces, one if it replaces none; for `conv` and `pool` also `kernel`, `stride`
            and `padding`, `out_channels`, `groups` and `act`, or `pool_type`.
        schedule: its stages; a stage of operators that replace several has the strategy `merge`.
    """

    entry: str
    graph: OperatorGraph
    schedule: Schedule


@dataclass(frozen=True)
class ScheduledNetwork:
    """A published schedule: the blocks of a network, first to run first.

    Attributes:
        name: the name of the network and its search.
        input_name: the name of the input.
        input_shape: its channels, height and width.
        blocks: the blocks.
    """

    name: str
    input_name: str
    input_shape: tuple[int, ...]
    blocks: tuple[ScheduledBlock, ...]


class _MalformedError(Exception):
    """What is wrong with the file, in a few words."""


def read_ios_schedule(path: str | Path) -> ScheduledNetwork:
    """Reads a published schedule; whether it is valid is for `validate` to say, block by block.

    Raises:
        ArtefactError: the file cannot be read or is no such schedule.
    """
    content = read_limited(path)
    try:
        return _network(json.loads(content))
    except (_MalformedError, GraphError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ArtefactError(
            f"{path} is no schedule file: {reason}",
            expected="a network of blocks of nodes with stages, as the IOS project writes them",
        ) from error


def _network(document: Any) -> ScheduledNetwork:
    placeholder = _field(document, "input", dict)
    entry = _field(placeholder, "name", str)
    shapes = {entry: _integers(placeholder, "output_shape", 3)}
    blocks = []
    for block in _field(document, "blocks", list):
        blocks.append(_block(block, shapes))
    return ScheduledNetwork(_field(document, "name", str), entry, shapes[entry], tuple(blocks))


def _block(block: Any, shapes: dict[str, tuple[int, ...]]) -> ScheduledBlock:
    entry = _field(block, "enter_name", str)
    if entry not in shapes:
        raise _MalformedError(f"a block enters with {entry!r}, which no earlier block gives")
    nodes = [*_field(block, "inner_nodes", list), _field(block, "exit_node", dict)]
    numbers: dict[str, int] = {}
    for node in nodes:
        name = _field(node, "name", str)
        if name in numbers or name in shapes:
            raise _MalformedError(f"two nodes are called {name!r}")
        numbers[name] = len(numbers)
    inside = {entry: shapes[entry]} | {_field(node, "name", str): _integers(node, "output_shape", 3) for node in nodes}
    operators = [_operator(node, inside) for node in nodes]
    edges = [
        (numbers[part.source], consumer)
        for consumer, operator in enumerate(operators)
        for term in operator.attributes["inputs"]
        for part in term
        if part.source != entry
    ]
    graph = OperatorGraph.from_edges(len(operators), edges, operators)
    shapes[operators[-1].name] = inside[operators[-1].name]
    stages = tuple(_stage(stage, numbers, graph) for stage in _field(block, "stages", list))
    return ScheduledBlock(entry, graph, Schedule(stages))


def _stage(stage: Any, numbers: Mapping[str, int], graph: OperatorGraph) -> Stage:
    groups = []
    for group in _listed(stage, "a stage"):
        names = _listed(group, "a group")
        unknown = [name for name in names if not isinstance(name, str) or name not in numbers]
        if unknown:
            raise _MalformedError(f"a stage names {str(unknown[0])[:40]!r}, which its block does not have")
        groups.append(tuple(numbers[name] for name in names))
    made = Stage(tuple(groups))
    merged = any(len(graph.operators[number].attributes["merged"]) > 1 for number in made.operators)
    return Stage(made.groups, "merge") if merged and len(made.operators) == 1 else made


def _operator(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> Operator:
    name, kind = _field(node, "name", str), _field(node, "type", str)
    terms = _field(node, "inputs", list)
    inputs = tuple(tuple(_slice(part, shapes) for part in _listed(term, "an input")) for term in terms)
    if not inputs or not all(inputs):
        raise _MalformedError(f"node {name!r} has no input")
    attributes: dict[str, Any] = {
        "inputs": inputs,
        "output_shape": shapes[name],
        "merged": tuple(_field(node, "hint_name", str).split()) or (name,),
    }
    if kind in ("conv", "pool"):
        attributes |= {key: _integers(node, key, 2) for key in ("kernel", "stride", "padding")}
        if min(*attributes["kernel"], *attributes["stride"]) < 1:
            raise _MalformedError(f"node {name!r} has a kernel or stride of 0")
    if kind == "conv":
        attributes |= {key: _integer(_field(node, key, int)) for key in ("out_channels", "groups")}
        attributes["act"] = _field(node, "act", str)
    elif kind == "pool":
        attributes["pool_type"] = _field(node, "pool_type", str)
    elif kind != "identity":
        raise _MalformedError(f"node {name!r} is of type {kind[:40]!r}")
    convolution = _convolution(inputs, attributes, shapes) if kind == "conv" else None
    return Operator(name, kind, convolution, MappingProxyType(attributes))


def _convolution(
    inputs: tuple[tuple[Slice, ...], ...], attributes: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> Convolution | None:
    if len(inputs) != 1 or len(inputs[0]) != 1:
        return None
    (source,) = inputs[0]
    return Convolution(
        f"{source.source}[{source.begin}:{source.end}]",
        (source.end - source.begin, *shapes[source.source][1:]),
        attributes["output_shape"][1:],
        attributes["kernel"],
        attributes["stride"],
        attributes["padding"],
        attributes["groups"],
        "" if attributes["act"] == NO_ACTIVATION else attributes["act"],
    )


def _slice(part: Any, shapes: Mapping[str, tuple[int, ...]]) -> Slice:
    if not isinstance(part, list) or len(part) != 3 or not isinstance(part[0], str):
        raise _MalformedError("an input is not a name with two channels")
    source, begin, end = part[0], _integer(part[1]), _integer(part[2])
    if source not in shapes:
        raise _MalformedError(f"an input is {source[:40]!r}, which its block does not have")
    if not begin < end <= shapes[source][0]:
        raise _MalformedError(f"channels {begin} to {end} of {source!r}, which has {shapes[source][0]}")
    return Slice(source, begin, end)


def _field(document: Any, key: str, kind: type) -> Any:
    if not isinstance(document, dict) or not isinstance(document.get(key), kind):
        raise _MalformedError(f"{key} is missing or not of type {kind.__name__}")
    return document[key]


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _MalformedError(f"{what} is not a list")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < LARGEST:
        raise _MalformedError(f"{str(value)[:40]} where a number of at most 31 bits should be")
    return value


def _integers(document: Any, key: str, length: int) -> tuple[int, ...]:
    values = _field(document, key, list)
    if len(values) != length:
        raise _MalformedError(f"{key} has {len(values)} numbers, not {length}")
    return tuple(_integer(value) for value in values)
