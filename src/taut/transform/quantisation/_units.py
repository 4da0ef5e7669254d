"""What is quantised as a whole: a weight with every layer and lookup that reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from taut.graph import Graph, Node, Ref
from taut.transform._patterns import CONVOLUTIONS, LINEAR, arguments
from taut.transform.quantisation._layers import (
    ADDMM,
    QuantisableLayer,
    convolution_layer,
    convolution_obstacle,
    is_below,
    linear_layer,
)
from taut.transform.quantisation._tables import Table, find_tables

_LAYERS = {LINEAR, *CONVOLUTIONS}


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """A constant weight and its readers.

    Attributes:
        path: the name that people give it.
        paths: every module path and name that reaches it.
        layers: linear layers and convolutions that read it.
        table: the lookups and slices that read it, if any.
        nodes: ids of its readers.
        obstacle: why it cannot be quantised; empty where it can.
    """

    path: str
    paths: tuple[str, ...]
    layers: tuple[QuantisableLayer, ...]
    table: Table | None
    nodes: tuple[int, ...]
    obstacle: str = ""

    @property
    def features(self) -> int:
        """The smaller one of inputs and outputs; of a table, rows and features."""
        sizes = [layer.features for layer in self.layers]
        return min(sizes if self.table is None else [*sizes, *self.table.weight.shape])

    @property
    def nbytes(self) -> int:
        """Bytes of the float32 weight."""
        return self.layers[0].weight.nbytes if self.table is None else self.table.weight.nbytes

    def is_below(self, roots: Iterable[object]) -> bool:
        """Whether one of its paths is one of the roots, or lies below it."""
        return is_below(self.paths, roots)


def find_units(graph: Graph) -> list[Unit]:
    """Every weight of a linear layer, convolution or lookup, in the order of first use, with what stands in its way."""
    layers: dict[str, list[QuantisableLayer]] = {}
    tables = {_key(graph, node): table for table in find_tables(graph) for node in (*table.lookups, *table.slices)}
    for node in graph.nodes:
        found = linear_layer(graph, node) or convolution_layer(graph, node)
        if found is not None:
            layers.setdefault(_key(graph, node), []).append(found)
    units: list[Unit] = [_unit(layers.get(key, []), tables.get(key)) for key in dict.fromkeys((*layers, *tables))]
    obstacles = {node: obstacle for node in graph.nodes if (obstacle := _obstacle(graph, node))}
    units += [
        Unit(node.module_path or node.op, (node.module_path,), (), None, (node.id,), obstacle)
        for node, obstacle in obstacles.items()
    ]
    return sorted(units, key=lambda unit: unit.nodes[0])


def quantisable_units(graph: Graph, *, skip: Sequence[object], minimum_features: int) -> list[Unit]:
    """The units that can be quantised, are wide enough and are not skipped."""
    return [
        unit
        for unit in find_units(graph)
        if not unit.obstacle and unit.features >= minimum_features and not unit.is_below(skip)
    ]


def _unit(layers: list[QuantisableLayer], table: Table | None) -> Unit:
    nodes = [layer.node for layer in layers]
    names = [layer.path for layer in layers]
    others: list[Node] = []
    if table is not None:
        names.append(table.path)
        nodes += [*table.lookups, *table.slices]
        others = [node for node in table.others if node not in nodes]
    paths = dict.fromkeys((*names, *(node.module_path for node in nodes if node.module_path)))
    obstacle = f"its weight is read by {_reader(others[0])} as well" if others else ""
    readers = tuple(sorted(node.id for node in nodes))
    return Unit(names[0], tuple(paths), tuple(layers), table, readers, obstacle)


def _reader(node: Node) -> str:
    return "the caller" if node.op == "constant" else node.op


def _obstacle(graph: Graph, node: Node) -> str:
    """What keeps a convolution, or a linear layer that computes its weight, from being quantised."""
    if node.op == LINEAR:
        return "" if linear_layer(graph, node) else "its weight is no constant in float32"
    return convolution_obstacle(graph, node) or ""


def _key(graph: Graph, node: Node) -> str:
    """The content hash of the weight that a layer or lookup reads."""
    given = arguments(node, ("input", "weight"))
    weight = node.args[2] if node.op == ADDMM else given["weight"] if node.op in _LAYERS else node.args[0]
    assert isinstance(weight, Ref)
    return str(graph.nodes[weight.node].args[0])
