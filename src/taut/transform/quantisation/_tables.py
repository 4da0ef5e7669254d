"""Embedding tables: constants that a graph looks up by index, or slices."""

from __future__ import annotations

import dataclasses

import torch

from taut.graph import Graph, Node, Ref
from taut.transform.quantisation._layers import layer_path

LOOKUP = "aten.embedding.default"
_SLICES = ("aten.slice.Tensor", "aten.select.int", "aten.narrow.default")


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A float32 matrix that is looked up by row.

    Attributes:
        weight: (rows, features).
        name: the name of the constant.
        lookups: the `embedding` nodes that read it.
        slices: nodes that take some of its rows by position.
        others: nodes that read it in another way, under any name; a graph output counts as the constant's own node.
    """

    weight: torch.Tensor
    name: str
    lookups: tuple[Node, ...]
    slices: tuple[Node, ...]
    others: tuple[Node, ...]

    @property
    def path(self) -> str:
        """As `QuantisableLayer.path`."""
        return layer_path(self.name)

    @property
    def nodes(self) -> tuple[int, ...]:
        """Ids of the nodes that change when the table is encoded."""
        return tuple(sorted(node.id for node in (*self.lookups, *self.slices)))


def find_tables(graph: Graph) -> list[Table]:
    """The tables of a graph, in the order of their first use; constants with the same content are one table."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "constant":
            groups.setdefault(str(node.args[0]), []).append(node)
    found = [_table(graph, constants) for constants in groups.values()]
    return sorted((table for table in found if table is not None), key=lambda table: table.nodes[0])


def _table(graph: Graph, constants: list[Node]) -> Table | None:
    weight = graph.constants[str(constants[0].args[0])]
    if weight.dim() != 2 or weight.dtype != torch.float32 or not weight.numel():
        return None
    if any(node.keyword("buffer") is True for node in constants):
        return None
    refs = {Ref(node.id) for node in constants}
    lookups, slices = [], []
    others = [node for node in constants if Ref(node.id) in graph.output_refs]
    for user in dict.fromkeys(user for node in constants for user in graph.users[node.id]):
        node = graph.nodes[user]
        source = node.args[0] if node.args else None
        by_row = source in refs and sum(ref in refs for ref in node.inputs) == 1
        if by_row and node.op == LOOKUP:
            lookups.append(node)
        elif by_row and node.op in _SLICES and (len(node.args) < 2 or node.args[1] == 0):
            slices.append(node)
        else:
            others.append(node)
    if not lookups and not slices:
        return None
    return Table(weight, str(constants[0].args[1]), tuple(lookups), tuple(slices), tuple(others))
