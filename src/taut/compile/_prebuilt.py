"""Nodes that kernels of the machine, copies or constants do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import sympy
import torch

from taut.compile._attention import lower_attention
from taut.compile._block import CopyStep, ItemStep, KernelStep
from taut.compile._constants import scalar_constant
from taut.compile._dims import free_symbols, plain, product
from taut.compile._kernel_operands import memory_order
from taut.compile._layout_ops import number
from taut.compile._pointwise import Expressions
from taut.compile._views import View, contiguous
from taut.graph import Node, Ref, ScalarType, evaluate

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


_LONGEST_RANGE = 1 << 20


def lower_prebuilt(lowering: Lowering, node: Node) -> bool:
    """Lower the node if it is one of those; returns whether it was."""
    handler = _HANDLERS.get(node.op.split(".")[1]) if node.op.startswith(("aten.", "taut.")) else None
    if handler is None or any(isinstance(kind, ScalarType) for kind in node.outputs):
        return False
    try:
        found = handler(lowering, node)
    except LookupError:  # a number that is not known before
        return False
    if found is not None:
        lowering.values[Ref(node.id)] = found
    return found is not None


def _embedding(lowering: Lowering, node: Node) -> View | None:
    chosen = node.args[1]
    if node.op.startswith("aten.index_select"):
        if node.args[1] != 0:
            return None
        chosen = node.args[2]
    table, indices = lowering.tensor(node.args[0]), lowering.tensor(chosen)
    if table.dtype != torch.float32 or indices.dtype != torch.int64 or table.rank != 2:
        return None
    rows = _rows_of(lowering, lowering.contiguous(table), indices)
    return contiguous(rows.buffer, (*indices.sizes, table.sizes[1]))


def _indexed(lowering: Lowering, node: Node) -> View | None:
    """Rows of a tensor of static length by one tensor of indices, of which negative ones count from the end."""
    chosen = node.args[1]
    first, *others = chosen if isinstance(chosen, tuple) and chosen else (None,)
    if not isinstance(first, Ref) or any(item is not None for item in others):
        return None
    constants = lowering.graph.constant(node.args[0]), lowering.graph.constant(first)
    if all(item is not None for item in constants):
        return lowering.constant(torch.ops.aten.index(constants[0], [constants[1]]))
    table, indices = lowering.tensor(node.args[0]), lowering.tensor(first)
    length = table.sizes[0]
    if table.dtype != torch.float32 or indices.dtype != torch.int64 or not isinstance(length, int):
        return None
    flat = lowering.contiguous(table).reshape((length, product(table.sizes[1:])))
    assert flat is not None
    rows = _rows_of(lowering, flat, _from_the_start(lowering, indices, length))
    return contiguous(rows.buffer, (*indices.sizes, *table.sizes[1:]))


def _from_the_start(lowering: Lowering, indices: View, length: int) -> View:
    """Indices with `length` added to negative ones."""
    constant = indices.buffer.constant
    if constant is not None and bool((constant >= 0).all()):
        return indices
    made = Expressions([("operand", 0), ("constant", 0), ("cast", "int64", 1), ("lt", 0, 2), ("constant", length)])
    made.entries += [("cast", "int64", 4), ("add", 0, 5), ("where", 3, 6, 0)]
    target = contiguous(lowering.new(torch.int64, product(indices.sizes)), indices.sizes)
    lowering.emit_map([indices], target, made)
    return target


def _rows_of(lowering: Lowering, table: View, indices: View) -> View:
    """The rows of a contiguous matrix by indices."""
    indices = lowering.contiguous(indices)
    flat = indices.reshape((product(indices.sizes),))
    assert flat is not None
    buffer = lowering.new(table.dtype, plain(flat.sizes[0] * table.sizes[1]))
    rows = contiguous(buffer, (flat.sizes[0], table.sizes[1]))
    lowering.emit(KernelStep("embedding", (table, flat), (rows,), lowering.label))
    return rows


def _filled(lowering: Lowering, node: Node) -> View | None:
    """A tensor of one value: a constant of one element that does not move."""
    name = node.op.split(".")[1].removeprefix("new_").removesuffix("_like")
    values = {"zeros": 0, "ones": 1, "scalar_tensor": node.args[0] if node.args else None}
    position = 2 if node.op.split(".")[1] == "new_full" else 1
    value = values.get(name, node.args[position] if len(node.args) > position else node.keyword("fill_value"))
    found = scalar_constant(lowering.graph, value)
    if found is None:
        return None
    one = lowering.constant(torch.tensor(found, dtype=node.type.dtype))
    return one.expand(tuple(plain(size) for size in node.type.shape))


def _arange(lowering: Lowering, node: Node) -> View | None:
    """A slice of a constant where the length is fixed."""
    size = plain(node.type.shape[0])
    arguments = [scalar_constant(lowering.graph, item) for item in node.args]
    if isinstance(size, int) and all(item is not None for item in arguments):
        overload = getattr(torch.ops.aten.arange, node.op.split(".")[2])
        return lowering.constant(overload(*arguments, dtype=node.type.dtype, device="cpu"))
    limits = [number(lowering.graph, item) for item in node.args]
    start, step = (0, 1) if len(limits) == 1 else (limits[0], limits[2] if len(limits) > 2 else 1)
    uppers = {name: limits.upper for name, limits in lowering.graph.symbols.items() if limits.upper is not None}
    if (start, step) != (0, 1) or not {str(symbol) for symbol in free_symbols(size)} <= uppers.keys():
        return None
    highest = evaluate(size, uppers)
    if highest > _LONGEST_RANGE:
        return None
    return lowering.constant(torch.arange(highest, dtype=node.type.dtype)).narrow(0, 0, size)


def _concatenate(lowering: Lowering, node: Node) -> View | None:
    parts = node.args[0]
    if not isinstance(parts, tuple):
        return None
    axis = node.args[1] if len(node.args) > 1 else node.keyword("dim", 0)
    stacked = node.op.startswith("aten.stack")
    views = [lowering.tensor(part) for part in parts]
    rank = len(node.type.shape)
    assert isinstance(axis, int)
    axis %= rank
    if stacked:
        views = [view.insert(axis) for view in views]
    if any(view.dtype != node.type.dtype or view.rank != rank for view in views):
        return None
    sizes = tuple(plain(size) for size in node.type.shape)
    placed = {part for part, join in lowering.joins.items() if join.node == node.id}
    if placed:
        whole = lowering.joined(node.id)
    else:
        order = memory_order(views[0], lowering.hint)
        memory = contiguous(lowering.new(node.type.dtype, product(sizes)), [sizes[place] for place in order])
        whole = memory.permute([order.index(place) for place in range(rank)])
    start = 0
    for part, view in zip(parts, views, strict=True):
        target = whole.narrow(axis, start, view.sizes[axis])
        if part not in placed or view.buffer is not whole.buffer:
            lowering.emit(CopyStep(view, target, lowering.label))
        start = plain(start + view.sizes[axis])
    return whole


def _nonzero(lowering: Lowering, node: Node) -> View | None:
    """Room for every element; the count tells how much of it is used."""
    source = lowering.contiguous(lowering.tensor(node.args[0]))
    size = node.type.shape[0]
    if source.dtype != torch.bool or not isinstance(size, sympy.Symbol):
        return None
    most = product(source.sizes)
    whole = contiguous(lowering.new(torch.int64, plain(most * source.rank)), (most, source.rank))
    return _counted(lowering, "nonzero", (source,), whole, size)


def _suppression(lowering: Lowering, node: Node) -> View | None:
    """Room for every box; the count tells how many stay."""
    boxes, scores = lowering.tensor(node.args[0]), lowering.tensor(node.args[1])
    limit, size = scalar_constant(lowering.graph, node.args[2]), node.type.shape[0]
    if limit is None or not isinstance(size, sympy.Symbol):
        return None
    threshold = lowering.constant(torch.tensor(limit, dtype=torch.float32))
    whole = contiguous(lowering.new(torch.int64, boxes.sizes[0]), (boxes.sizes[0],))
    return _counted(lowering, "nms", (boxes, scores, threshold), whole, size)


def _counted(lowering: Lowering, kernel: str, inputs: tuple[View, ...], whole: View, size: sympy.Symbol) -> View:
    """The rows of a result that a kernel fills, of which it tells the number."""
    count = contiguous(lowering.new(torch.int64, 1), (1,))
    lowering.emit(KernelStep(kernel, inputs, (whole, count), lowering.label))
    if size.name not in lowering.known:
        lowering.known.add(size.name)
        lowering.emit(ItemStep(count, size.name, lowering.label))
    return whole.narrow(0, 0, size)


def _quantised_linear(lowering: Lowering, node: Node) -> View | None:
    """A linear layer with integer weights; a missing bias is one of zeros."""
    x, packed, scales = (lowering.tensor(argument) for argument in node.args[:3])
    bias, activation = node.args[3], node.args[4]
    name = "int8_linear"
    if node.op.startswith("taut.vector_linear"):
        name = {"int8": "w4a8_linear", "vsq4": "w4a4_linear"}.get(str(node.args[5]), "")
    if x.dtype != torch.float32 or x.rank == 0 or not name or packed.buffer.constant is None:
        return None
    features, channels = x.sizes[-1], scales.sizes[0]
    rows = lowering.contiguous(x).reshape((product(x.sizes[:-1]), features))
    assert rows is not None and isinstance(channels, int)
    offset = lowering.zeros(channels) if bias is None else lowering.tensor(bias)
    buffer = lowering.new(torch.float32, plain(rows.sizes[0] * channels))
    target = contiguous(buffer, (rows.sizes[0], channels))
    operands = (rows, lowering.contiguous(packed), scales, offset)
    lowering.emit(KernelStep(f"{name}_{activation}", operands, (target,), lowering.label))
    return contiguous(buffer, (*x.sizes[:-1], channels))


def _pad(lowering: Lowering, node: Node) -> View | None:
    """A filled tensor with the argument copied into its middle."""
    source, widths = lowering.tensor(node.args[0]), node.args[1]
    position = 2
    if node.op == "aten.pad.default":
        position = 3
        if (node.args[2] if len(node.args) > 2 else node.keyword("mode", "constant")) != "constant":
            return None
    given = node.args[position] if len(node.args) > position else node.keyword("value", 0)
    value = scalar_constant(lowering.graph, 0 if given is None else given)
    if not isinstance(widths, tuple) or value is None:
        return None
    numbers = [number(lowering.graph, width) for width in widths]
    if any(not isinstance(width, int) or width < 0 for width in numbers):
        return None
    sizes = tuple(plain(size) for size in node.type.shape)
    whole = contiguous(lowering.new(source.dtype, product(sizes)), sizes)
    fill = lowering.constant(torch.tensor(value, dtype=source.dtype)).expand(sizes)
    lowering.emit(CopyStep(fill, whole, lowering.label))
    middle = whole
    for position in range(len(numbers) // 2):
        axis = source.rank - 1 - position
        middle = middle.narrow(axis, numbers[2 * position], source.sizes[axis])
    lowering.emit(CopyStep(source, middle, lowering.label))
    return whole


_HANDLERS: dict[str, Callable[[Lowering, Node], View | None]] = {
    "embedding": _embedding,
    "index_select": _embedding,
    "index": _indexed,
    "arange": _arange,
    "cat": _concatenate,
    "stack": _concatenate,
    "nonzero": _nonzero,
    "nms": _suppression,
    "int8_linear": _quantised_linear,
    "vector_linear": _quantised_linear,
    "scaled_dot_product_attention": lower_attention,
    "constant_pad_nd": _pad,
    "pad": _pad,
    **dict.fromkeys(("zeros", "ones", "full", "scalar_tensor"), _filled),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"), _filled),
}
