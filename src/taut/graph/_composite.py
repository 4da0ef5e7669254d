"""Programs that need no second trace: their composite operators are expanded while they are lowered.

torch.export decomposes by tracing the whole program again, which takes as long as the export. A program without writes,
control flow and data-dependent sizes whose operators all stay as they are, or are among the few that are expanded here,
is lowered as it was exported.
"""

from __future__ import annotations

import operator
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch import fx
from torch._export.utils import _is_cia_op, _is_preservable_cia_op
from torch.export import ExportedProgram

from taut.graph._table import DECOMPOSED, DROPPED, SCALAR_NAMES, is_identity
from taut.graph._types import Argument, Ref, ScalarType

if TYPE_CHECKING:
    from taut.graph._lower import Lowering

_RESHAPES = frozenset({"aten.flatten.using_ints", "aten.unflatten.int", "aten.reshape.default"})
_SHAPED_LIKE_RESULT = _RESHAPES | {"aten.expand_as.default"}
_OTHERS = frozenset({"aten.to.dtype", "aten.contiguous.default", "aten.batch_norm.default"})


def is_settled(program: ExportedProgram) -> bool:
    """Whether decomposing would change nothing that lowering does not do as well."""
    nodes = program.graph.nodes
    bound = {size for node in nodes if node.op == "placeholder" for size in _sizes(node)}
    symbols = frozenset().union(*(size.free_symbols for size in bound))
    return all(
        _is_settled(node, bound) and all(size.free_symbols <= symbols for size in _sizes(node)) for node in nodes
    )


def expand(lowering: Lowering, node: fx.Node, op: str, args: tuple[Argument, ...]) -> Argument:
    """The value of a composite operator, or of a size that may be known; None for any other."""
    value: Any = node.meta.get("val")
    if op in _SHAPED_LIKE_RESULT:
        sizes = tuple(_size(lowering, size) for size in value.shape)
        name = "aten.reshape.default" if op in _RESHAPES else "aten.expand.default"
        return _emit(lowering, node, name, args[0], sizes)
    if op == "aten.to.dtype":
        return args[0] if _keeps_dtype(node) else _emit(lowering, node, "aten._to_copy.default", args[0], dtype=args[1])
    if op == "aten.contiguous.default":
        if _strides(node) == _strides(node.args[0]):
            return args[0]
        return _emit(lowering, node, "aten.clone.default", args[0], memory_format=torch.contiguous_format)
    if op == "aten.sym_size.int" and isinstance(value, torch.SymInt):
        if value.node.expr not in lowering.sizes:
            lowering.sizes[value.node.expr] = _emit(lowering, node, op, *args)
        return lowering.sizes[value.node.expr]
    if op == "aten.batch_norm.default":
        return _emit(lowering, node, op, *args[:8], True)
    return None


def _is_settled(node: fx.Node, bound: Container[sympy.Basic]) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function" and (target in SCALAR_NAMES or target is operator.getitem)
    op = str(target)
    if op in _SHAPED_LIKE_RESULT:
        return all(size in bound for size in _sizes(node))
    if op in _OTHERS:
        return not node.kwargs and (
            len(node.args) == 1
            if op == "aten.contiguous.default"
            else len(node.args) == 2
            if op == "aten.to.dtype"
            else len(node.args) == 9 and node.args[5] is False
        )
    if op in DROPPED or is_identity(op, node.args, tuple(node.kwargs)):  # pyright: ignore
        return True
    decomposes = target in DECOMPOSED or (_is_cia_op(target) and not _is_preservable_cia_op(target))
    return not decomposes and not target._schema.is_mutable


def _sizes(node: fx.Node) -> Iterator[sympy.Basic]:
    """The symbolic sizes in a node's value."""
    value = node.meta.get("val")
    for item in value if isinstance(value, (tuple, list)) else (value,):
        for size in item.shape if isinstance(item, torch.Tensor) else (item,):
            if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
                yield size.node.expr


def _size(lowering: Lowering, size: int | torch.SymInt) -> Argument:
    """A size as a literal, or as that of an input."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression not in lowering.sizes:
        lowering.sizes[expression] = _size_of_input(lowering, expression)
    return lowering.sizes[expression]


def _size_of_input(lowering: Lowering, expression: sympy.Basic) -> Ref:
    for node in lowering.module.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and value.node.expr == expression:
            return lowering.values[node]  # pyright: ignore
        for axis, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if isinstance(size, torch.SymInt) and size.node.expr == expression:
                kind = ScalarType("int", lowering.expression(expression))
                return lowering.builder.add("aten.sym_size.int", lowering.values[node], axis, outputs=kind)
    raise AssertionError(expression)


def _keeps_dtype(node: fx.Node) -> bool:
    source = node.args[0]
    return isinstance(source, fx.Node) and source.meta["val"].dtype == node.args[1]


def _strides(node: Any) -> tuple[object, ...]:
    return tuple(
        stride.node.expr if isinstance(stride, torch.SymInt) else stride for stride in node.meta["val"].stride()
    )


def _emit(lowering: Lowering, node: fx.Node, op: str, *args: Argument, **keywords: Argument) -> Ref:
    lowering.emit(node, op, args, keywords)
    value = lowering.values[node]
    assert isinstance(value, Ref)
    return value
