"""Operators that only look at memory otherwise: their result is a view of their argument."""

from __future__ import annotations

import sympy

from taut.compile._dims import plain, same
from taut.compile._grouped import Grouped
from taut.compile._views import View
from taut.graph import Argument, Dim, Graph, Node, Ref, ScalarType, TensorType

_ALIASES = frozenset({"clone", "contiguous", "detach", "alias"})
_RESHAPES = frozenset({"reshape", "view", "_unsafe_view", "flatten", "unflatten"})
_BIJECTIVE = _ALIASES | _RESHAPES | {"permute", "transpose", "t", "unsqueeze", "squeeze", "movedim"}
_PARTS = frozenset({"slice", "select", "narrow", "expand", "split", "split_with_sizes", "chunk", "unbind"})


def is_layout(node: Node) -> bool:
    """Whether the node's results are views of its first argument (after a copy, where no strides express that)."""
    return node.op.startswith("aten.") and node.op.split(".")[1] in _BIJECTIVE | _PARTS


def is_bijective(node: Node) -> bool:
    """Whether the result holds each element of the argument exactly once."""
    return node.op.startswith("aten.") and node.op.split(".")[1] in _BIJECTIVE


def view_results(graph: Graph, node: Node, source: View) -> list[View] | None:
    """The node's results as views of its argument, or None where a copy is needed first."""
    kinds = [kind for kind in node.outputs if isinstance(kind, TensorType)]
    sizes = [tuple(plain(size) for size in kind.shape) for kind in kinds]
    name = node.op.split(".")[1]
    if name in _ALIASES:
        return [source]
    if name in _RESHAPES:
        found = source.reshape(sizes[0])
        return None if found is None else [found]
    if name == "expand":
        return [source.expand(sizes[0])]
    if name in ("permute", "transpose", "t"):
        return [source.permute(_order(node, source.rank))]
    if name == "unsqueeze":
        return [source.insert(_axis(node.args[1], source.rank + 1))]
    if name == "squeeze":
        return [_squeezed(source, sizes[0], node)]
    if name == "select":
        axis = _axis(node.args[1], source.rank)
        index = number(graph, node.args[2])
        index = plain(index + source.sizes[axis]) if _negative(index) else index
        return [source.narrow(axis, index, 1).drop([axis])]
    if name == "unbind":
        axis = _axis(node.args[1] if len(node.args) > 1 else node.keyword("dim", 0), source.rank)
        return [source.narrow(axis, index, 1).drop([axis]) for index in range(len(kinds))]
    if name in ("split", "split_with_sizes", "chunk"):
        axis = _axis(node.args[2] if len(node.args) > 2 else node.keyword("dim", 0), source.rank)
        start: Dim = 0
        parts = []
        for part in sizes:
            parts.append(source.narrow(axis, start, part[axis]))
            start = plain(start + part[axis])
        return parts
    if name in ("slice", "narrow"):
        return _sliced(graph, node, source, sizes[0])
    return None


def is_reshape(node: Node) -> bool:
    """Whether the node gives its argument other sizes, keeping the order of the elements."""
    return node.op.split(".")[1] in _RESHAPES


def regroup(node: Node, source: Grouped) -> View | Grouped | None:
    """The node's result from a reshape that was put off, or None where that has to be done first."""
    name = node.op.split(".")[1]
    rank = len(source.groups)
    if name in _ALIASES:
        return source
    if name in _RESHAPES:
        return source.reshape([plain(size) for size in node.type.shape])
    if name in ("permute", "transpose"):
        return source.permute(_order(node, rank))
    if name == "unsqueeze":
        return source.insert(_axis(node.args[1], rank + 1))
    return None


def _order(node: Node, rank: int) -> list[int]:
    """The dimensions of the argument in the order of the result."""
    name = node.op.split(".")[1]
    if name == "permute":
        order = node.args[1]
        assert isinstance(order, tuple)
        return [_axis(item, rank) for item in order]
    order = list(range(rank))
    if rank >= 2:
        a, b = (0, 1) if name == "t" else (_axis(node.args[1], rank), _axis(node.args[2], rank))
        order[a], order[b] = order[b], order[a]
    return order


def number(graph: Graph, argument: Argument) -> Dim:
    """An integer argument as a size.

    Raises:
        LookupError: if its value is not an expression over symbols.
    """
    if isinstance(argument, Ref):
        kind = graph.value_type(argument)
        if not isinstance(kind, ScalarType) or not isinstance(kind.expression, sympy.Expr):
            raise LookupError(argument)  # noqa: TRY004 - no wrong type: the value is not known
        return plain(kind.expression)
    if not isinstance(argument, int):
        raise LookupError(argument)  # noqa: TRY004
    return int(argument)


def _sliced(graph: Graph, node: Node, source: View, sizes: tuple[Dim, ...]) -> list[View] | None:
    axis = _axis(node.args[1] if len(node.args) > 1 else node.keyword("dim", 0), source.rank)
    try:
        begin = node.args[2] if len(node.args) > 2 else node.keyword("start")
        start = 0 if begin is None else number(graph, begin)
        step = (
            number(graph, node.args[4] if len(node.args) > 4 else node.keyword("step", 1)) if len(node.args) != 3 else 1
        )
        step = 1 if node.op.startswith("aten.narrow") else step
    except LookupError:
        return None
    if not isinstance(step, int):
        return None
    if _negative(start):
        start = plain(sympy.Max(0, start + source.sizes[axis]))
    elif start != 0:
        start = plain(sympy.Min(start, source.sizes[axis]))
    return [source.narrow(axis, start, sizes[axis], step)]


def _squeezed(source: View, sizes: tuple[Dim, ...], node: Node) -> View:
    chosen = node.args[1] if len(node.args) > 1 else None
    axes = range(source.rank) if chosen is None else chosen if isinstance(chosen, tuple) else (chosen,)
    gone = [axis for axis in (_axis(item, source.rank) for item in axes) if same(source.sizes[axis], 1)]
    return source.drop(gone[: source.rank - len(sizes)])


def _axis(argument: Argument, rank: int) -> int:
    assert isinstance(argument, int)
    return argument % rank if rank else 0


def _negative(value: Dim) -> bool:
    return value < 0 if isinstance(value, int) else bool(value.is_negative)
