"""Which nodes become one kernel.

An anchor (a product, a convolution, attention) takes the element-wise nodes that follow as its epilogue, as long as
each value in between has one user. What remains is gathered backwards into maps: a node takes in those that only it
uses and that run over the same elements. Nodes whose sizes depend on data, and everything that runs on ATen, stay
alone: their values have to lie in memory. A map that only depthwise convolutions use runs in their kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from taut.compile._dims import plain, same
from taut.compile._heads import is_head
from taut.compile._layout_ops import is_bijective
from taut.compile._pointwise import is_pointwise
from taut.compile._rows import is_row, row_dimensions
from taut.graph import Dim, Graph, Node, Ref, TensorType

_LARGEST_MAP = 32  # nodes of a map


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The groups of a graph.

    Attributes:
        chains: by anchor, the nodes that follow it in its kernel; the kernel runs where the last of them stands.
        maps: by root, the nodes of a map in topological order, the root last.
        heads: by anchor, the nodes of a map that its kernel does to what it reads, the root last.
    """

    chains: dict[int, tuple[int, ...]]
    maps: dict[int, tuple[int, ...]]
    heads: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def members(self) -> dict[int, int]:
        """For each node that is computed within another's kernel, that other node."""
        found = {member: root for root, nodes in self.maps.items() for member in nodes if member != root}
        kernels = (*self.chains.items(), *self.heads.items())
        return found | {member: anchor for anchor, nodes in kernels for member in nodes}


def fuse(
    graph: Graph,
    anchors: frozenset[int],
    avoided: frozenset[int] = frozenset(),
    pins: Mapping[int, int] = MappingProxyType({}),
    headed: frozenset[int] = frozenset(),
) -> Fusion:
    """Group a graph's nodes.

    Args:
        graph: the graph.
        anchors: ids of nodes whose kernels take an epilogue.
        avoided: ids of nodes that stay alone.
        pins: logical devices of nodes; those of a group have the same, or none.
        headed: those of the anchors whose kernels can run a map on their first input.
    """
    nodes = [node for node in graph.nodes if node.id not in avoided | anchors]
    pointwise = {node.id for node in nodes if is_pointwise(graph, node)}
    chains: dict[int, tuple[int, ...]] = {}
    taken: set[int] = set()
    for anchor in sorted(anchors):
        chain = _chain(graph, anchor, pointwise - taken, pins)
        if chain:
            chains[anchor] = chain
            taken |= set(chain)
    rows = {node.id for node in nodes if is_row(graph, node)}
    maps = _maps(graph, (pointwise | rows) - taken, rows, pins)
    users = {root: _heads(graph, maps[root], rows, headed, pins) for root in maps}
    heads = {anchor: maps[root] for root, found in users.items() for anchor in found}
    return Fusion(chains, {root: nodes for root, nodes in maps.items() if not users[root]}, heads)


def _heads(
    graph: Graph, members: tuple[int, ...], rows: set[int], headed: frozenset[int], pins: Mapping[int, int]
) -> tuple[int, ...]:
    """The anchors that run a map in place of it; none where it has to lie in memory."""
    root = members[-1]
    users = tuple(graph.users[root])
    if root in {ref.node for ref in graph.output_refs} or not users or not headed.issuperset(users):
        return ()
    if rows.intersection(members) or any(pins.get(user) != pins.get(root) for user in users):
        return ()
    return users if is_head(graph, members) else ()


def _chain(graph: Graph, anchor: int, pointwise: set[int], pins: Mapping[int, int]) -> tuple[int, ...]:
    found: list[int] = []
    useful = 0  # views at the end are no use
    current = graph.nodes[anchor]
    while graph.uses(current.id) == 1 and graph.users[current.id]:
        user = graph.nodes[graph.users[current.id][0]]
        if sum(ref.node == current.id for ref in user.inputs) != 1 or pins.get(user.id) != pins.get(anchor):
            break
        if is_bijective(user):
            found.append(user.id)
        elif (
            user.id in pointwise
            and user.type.dtype == current.type.dtype
            and _same_sizes(_sizes(graph, Ref(user.id)), _sizes(graph, Ref(current.id)))
        ):
            found.append(user.id)
            useful = len(found)
        else:
            break
        current = user
    return tuple(found[:useful])


def _maps(graph: Graph, candidates: set[int], rows: set[int], pins: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    maps: dict[int, tuple[int, ...]] = {}
    assigned: set[int] = set()
    outputs = {ref.node for ref in graph.output_refs}
    for root in sorted(candidates, reverse=True):
        if root in assigned:
            continue
        node = graph.nodes[root]
        space = iteration_sizes(graph, node)
        dimensions = row_dimensions(graph, node) if root in rows else ()
        members = {root}
        grown = True
        while grown and len(members) < _LARGEST_MAP:
            grown = False
            for used in sorted({ref.node for member in members for ref in graph.nodes[member].inputs}, reverse=True):
                if used in members or used in assigned or used not in candidates or used in outputs:
                    continue
                if pins.get(used) != pins.get(root) or not set(graph.users[used]) <= members:
                    continue
                producer = graph.nodes[used]
                theirs = row_dimensions(graph, producer) if used in rows else ()
                if used in rows and dimensions and theirs != dimensions:
                    continue
                if not _fits(graph, producer, space, theirs or dimensions):
                    continue
                members.add(used)
                dimensions = dimensions or theirs
                grown = True
        assigned |= members
        maps[root] = tuple(sorted(members))
    return maps


def iteration_sizes(graph: Graph, node: Node) -> tuple[Dim, ...]:
    """The sizes over which a map with this root runs: those of its result, or of what it reduces."""
    if is_row(graph, node):
        first = node.inputs[0]
        return _sizes(graph, first)
    return _sizes(graph, Ref(node.id))


def _fits(graph: Graph, producer: Node, space: tuple[Dim, ...], dimensions: tuple[int, ...]) -> bool:
    """Whether the producer runs over the same elements, or over one for each row."""
    if is_row(graph, producer) and not _same_sizes(iteration_sizes(graph, producer), space):
        return False
    own = _sizes(graph, Ref(producer.id))
    return _same_sizes(own, space) or _is_row_value(own, space, dimensions)


def _is_row_value(sizes: tuple[Dim, ...], space: tuple[Dim, ...], dimensions: tuple[int, ...]) -> bool:
    if not dimensions or len(sizes) != len(space):
        return False
    return all(
        same(size, 1) if axis in dimensions else same(size, whole)
        for axis, (size, whole) in enumerate(zip(sizes, space, strict=True))
    )


def _same_sizes(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _sizes(graph: Graph, ref: Ref) -> tuple[Dim, ...]:
    kind = graph.value_type(ref)
    return tuple(plain(size) for size in kind.shape) if isinstance(kind, TensorType) else ()
