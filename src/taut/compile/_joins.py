"""Concatenations whose parts are written where they belong, so that nothing is copied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from taut.compile._dims import plain
from taut.graph import Dim, Graph, Node, Ref, TensorType

_PIXELS = ("aten.conv2d.", "aten.convolution.", "aten.max_pool2d.", "aten.avg_pool2d.")


@dataclasses.dataclass(frozen=True)
class Join:
    """Where a value lies in a concatenation.

    Attributes:
        node: the concatenation.
        start: the first channel.
        channels: of the whole.
    """

    node: int
    start: int
    channels: int


def plan_joins(
    graph: Graph, anchor_of: Callable[[int], int | None], pins: Mapping[int, int] = MappingProxyType({})
) -> dict[Ref, Join]:
    """The values that can be written into a concatenation of channels of images.

    Args:
        graph: the graph.
        anchor_of: for the node whose value a kernel with an epilogue stores, the node that the kernel is made for.
        pins: logical devices of nodes; the parts of one concatenation have the same, or none.
    """
    joins: dict[Ref, Join] = {}
    for node in graph.nodes:
        parts = _parts(graph, node)
        if not parts or len(set(parts)) != len(parts):
            continue
        anchors = [anchor_of(part.node) for part in parts]
        if any(anchor is None or not graph.nodes[anchor].op.startswith(_PIXELS) for anchor in anchors):
            continue
        if any(graph.uses(part.node) != 1 for part in parts) or len({pins.get(part.node) for part in parts}) > 1:
            continue
        sizes = [_channels(graph, part) for part in parts]
        if any(not isinstance(size, int) for size in sizes):
            continue
        numbers = [size for size in sizes if isinstance(size, int)]
        for position, part in enumerate(parts):
            joins[part] = Join(node.id, sum(numbers[:position]), sum(numbers))
    return joins


def _parts(graph: Graph, node: Node) -> list[Ref]:
    """The parts of a concatenation of channels of images."""
    if node.op != "aten.cat.default" or len(node.type.shape) != 4:
        return []
    parts, *rest = node.args
    axis = rest[0] if rest else node.keyword("dim", 0)
    if axis not in (1, -3) or not isinstance(parts, tuple):
        return []
    refs = [part for part in parts if isinstance(part, Ref)]
    kinds = [graph.value_type(ref) for ref in refs]
    same = all(isinstance(kind, TensorType) and kind.dtype == node.type.dtype for kind in kinds)
    return refs if same and len(refs) == len(parts) else []


def _channels(graph: Graph, ref: Ref) -> Dim:
    kind = graph.value_type(ref)
    assert isinstance(kind, TensorType)
    return plain(kind.shape[1])
