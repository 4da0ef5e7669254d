"""What a depthwise convolution does to its inputs on the way: element-wise nodes before it, in its kernel.

The kernel copies its inputs to a scratch with zeros around anyway, so sums and functions of them there cost no memory
traffic of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from taut.codegen import Expression, is_heavy
from taut.compile._dims import plain, same
from taut.compile._kernel_operands import broadcast_to_one, pixels_last
from taut.compile._pointwise import Expressions, Value, expression
from taut.compile._views import View
from taut.graph import Graph, Ref, TensorType

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering

_MOST_IMAGES = 6


@dataclasses.dataclass(frozen=True)
class Head:
    """Inputs of a kernel before its window.

    Attributes:
        views: as (N, H, W, C) with dense channels; the first one is not broadcast.
        expression: over these.
    """

    views: tuple[View, ...]
    expression: Expression


def is_head(graph: Graph, members: tuple[int, ...]) -> bool:
    """Whether the nodes of a map, the root last, can run in the kernels of the depthwise convolutions that use it.

    They are element by element, in float32, light, and read few images of fixed height and width; just one image where
    several kernels repeat them.
    """
    root = members[-1]
    values = [graph.value_type(ref) for ref in (Ref(root), *_read(graph, members), *map(Ref, members))]
    if any(not isinstance(kind, TensorType) or kind.dtype != torch.float32 for kind in values):
        return False
    if not all(isinstance(plain(size), int) for size in graph.nodes[root].type.shape[1:]):
        return False
    images = len(_images(graph, members))
    if not 1 <= images <= (_MOST_IMAGES if len(graph.users[root]) == 1 else 1):
        return False
    return not is_heavy(_expression(graph, members, lambda _: 0))


def make_head(lowering: Lowering, members: tuple[int, ...]) -> Head:
    """The operands of a kernel that computes the nodes of a map, the root last, before its window."""
    graph = lowering.graph
    images = _images(graph, members)
    space = tuple(plain(size) for size in graph.nodes[members[-1]].type.shape)
    order: list[Ref] = images[:1]

    def number(ref: Ref) -> int:
        if ref not in order:
            order.append(ref)
        return order.index(ref)

    made = _expression(graph, members, number)
    first, *others = (lowering.tensor(ref).expand(space) for ref in order)
    return Head((pixels_last(lowering, first), *(_beside(lowering, view) for view in others)), made)


def _beside(lowering: Lowering, view: View) -> View:
    nhwc = view.permute((0, 2, 3, 1))
    return broadcast_to_one(nhwc if nhwc.strides[3] == 0 else pixels_last(lowering, view))


def _expression(graph: Graph, members: tuple[int, ...], number: Callable[[Ref], int]) -> Expression:
    made = Expressions()
    computed: dict[Ref, Value] = {}

    def value(ref: Ref) -> Value:
        return computed[ref] if ref in computed else Value(made.add("operand", number(ref)), torch.float32)

    for member in members:
        computed[Ref(member)] = expression(graph, graph.nodes[member], made, value)
    made.cast_last(computed[Ref(members[-1])], torch.float32)
    return tuple(made.entries)


def _read(graph: Graph, members: tuple[int, ...]) -> list[Ref]:
    """What the nodes read of others, each once."""
    found = [ref for member in members for ref in graph.nodes[member].inputs if ref.node not in members]
    return list(dict.fromkeys(found))


def _images(graph: Graph, members: tuple[int, ...]) -> list[Ref]:
    """Those of the same sizes as the result."""
    sizes = graph.nodes[members[-1]].type.shape

    def whole(ref: Ref) -> bool:
        kind = graph.value_type(ref)
        shape = kind.shape if isinstance(kind, TensorType) else ()
        return len(shape) == len(sizes) and all(same(plain(a), plain(b)) for a, b in zip(shape, sizes, strict=True))

    return [ref for ref in _read(graph, members) if whole(ref)]
