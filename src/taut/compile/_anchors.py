"""Operators with a kernel template of their own that takes an epilogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from taut.codegen import (
    Expression,
    Operand,
    Recipe,
    block_of,
    linear_recipe,
    matmul_recipe,
    pack_linear,
    with_block,
)
from taut.compile._anchor import Anchor
from taut.compile._convolutions import convolution_anchor, is_convolution
from taut.compile._dims import plain, product, same
from taut.compile._grouped import Grouped
from taut.compile._kernel_operands import memory_order, operand
from taut.compile._pools import is_pool, pool_anchor
from taut.compile._views import Buffer, View, contiguous
from taut.graph import Argument, Dim, Graph, Node, Ref, TensorType

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


def is_anchor(graph: Graph, node: Node) -> bool:
    """Whether the node has a template, for these arguments."""
    known = _KINDS.get(node.op)
    if known is None or len(node.outputs) != 1:
        return False
    kinds = [graph.value_type(ref) for ref in (*node.inputs, Ref(node.id))]
    if any(not isinstance(kind, TensorType) or kind.dtype != torch.float32 for kind in kinds):
        return False
    if any(size == 0 for kind in kinds if isinstance(kind, TensorType) for size in kind.shape):
        return False
    return known[0](graph, node)


def make_anchor(lowering: Lowering, node: Node) -> Anchor:
    """The node's kernel."""
    return _KINDS[node.op][1](lowering, node)


def _is_linear(graph: Graph, node: Node) -> bool:
    weight = graph.constant(node.args[1])
    bias = _bias(node)
    return weight is not None and weight.dim() == 2 and (bias is None or graph.constant(bias) is not None)


def _linear(lowering: Lowering, node: Node) -> Anchor:
    return linear_anchor(lowering, node.args[0], _weight(lowering, node.args[1]), _bias(node))


def _is_any_product(graph: Graph, node: Node) -> bool:
    return _is_product(graph, node) or _is_batched_product(graph, node)


def _any_product(lowering: Lowering, node: Node) -> Anchor:
    return (_product if _is_product(lowering.graph, node) else _batched_product)(lowering, node)


def _is_product(graph: Graph, node: Node) -> bool:
    """Whether the node is x (..., K) @ w (K, N) with a constant w."""
    weight = graph.constant(node.args[1])
    kind = graph.value_type(node.inputs[0])
    return weight is not None and weight.dim() == 2 and isinstance(kind, TensorType) and len(kind.shape) >= 2


def _product(lowering: Lowering, node: Node) -> Anchor:
    weight = lowering.transposed(_weight(lowering, node.args[1]))
    return linear_anchor(lowering, node.args[0], weight, None)


def _is_addition_of_product(graph: Graph, node: Node) -> bool:
    weight, bias = graph.constant(node.args[2]), graph.constant(node.args[0])
    scaled = any(node.keyword(name, 1) != 1 for name in ("alpha", "beta"))
    return weight is not None and bias is not None and bias.dim() <= 1 and not scaled


def _addition_of_product(lowering: Lowering, node: Node) -> Anchor:
    weight = lowering.transposed(_weight(lowering, node.args[2]))
    return linear_anchor(lowering, node.args[1], weight, node.args[0])


def linear_anchor(lowering: Lowering, argument: Argument, weight: torch.Tensor, bias: Argument) -> Anchor:
    """The product of x (..., K) and a constant weight (N, K).

    Rows are taken in the order of memory, whatever their logical order, and the result has the same order.
    """
    features = weight.shape[0]
    late = lowering.late.get(argument) if isinstance(argument, Ref) and argument not in lowering.values else None
    leading = None
    if late is not None and same(late.view.sizes[-1], weight.shape[1]):
        x, leading = late.view, late.groups[:-1]
    elif late is not None and (joined := late.view.reshape((*late.view.sizes[: late.groups[-1][0]], weight.shape[1]))):
        x, leading = joined, late.groups[:-1]
    else:
        x = lowering.tensor(argument)
    order = memory_order(x, lowering.hint, last=[x.rank - 1])
    rows = _rows(x, order)
    if rows is None:
        rows = _rows(lowering.copy(x, order), order)
        assert rows is not None
    count = rows.sizes[0] if isinstance(rows.sizes[0], int) else None
    sizes = (rows.sizes[0], features)
    block = block_of(lowering.tiled(linear_recipe(weight.shape[1], features, rows=count), rows, sizes))
    packed = lowering.derived(
        weight, f"packed for linear in {block}", lambda w: torch.from_numpy(pack_linear(w.numpy(), block))
    )
    extras = () if bias is None else (lowering.tensor(bias).expand((rows.sizes[0], features)),)
    outer = [x.sizes[axis] for axis in order[:-1]]
    inverse = [order.index(axis) for axis in range(x.rank)]

    def view(buffer: Buffer) -> View | Grouped:
        whole = contiguous(buffer, (*outer, features)).permute(inverse)
        return whole if leading is None else Grouped(whole, (*leading, (x.rank - 1,)))

    def recipe(others: Sequence[Operand], output: Operand, expression: Expression) -> Recipe:
        made = linear_recipe(weight.shape[1], features, expression, others, rows=count, dtype=output.dtype)
        return with_block(made, block)

    return Anchor((rows, packed), extras, sizes, view, recipe, in_place=True)


def _is_batched_product(graph: Graph, node: Node) -> bool:
    """Both factors have at least two dimensions, and none is a constant matrix."""
    kinds = [graph.value_type(ref) for ref in node.inputs]
    return len(kinds) == 2 and all(isinstance(kind, TensorType) and len(kind.shape) >= 2 for kind in kinds)


def _batched_product(lowering: Lowering, node: Node) -> Anchor:
    """The product a (..., M, K) @ b (..., K, N), leading dimensions broadcast."""
    sizes = tuple(plain(size) for size in node.type.shape)
    batch = sizes[:-2]
    total = product(batch)

    def factor(argument: Argument) -> View:
        x = lowering.tensor(argument)
        whole = x.expand((*batch, *x.sizes[-2:]))
        found = whole.reshape((total, *x.sizes[-2:]))
        return found if found is not None else contiguous_copy(lowering, whole, (total, *x.sizes[-2:]))

    a, b = factor(node.args[0]), factor(node.args[1])

    def view(buffer: Buffer) -> View:
        return contiguous(buffer, sizes)

    def recipe(others: Sequence[Operand], output: Operand, expression: Expression) -> Recipe:
        return matmul_recipe(operand(a), operand(b), output, expression, others)

    return Anchor((a, b), (), (total, *sizes[-2:]), view, recipe)


def contiguous_copy(lowering: Lowering, view: View, sizes: Sequence[Dim]) -> View:
    """A row-major copy with other sizes."""
    found = lowering.copy(view, range(view.rank)).reshape(sizes)
    assert found is not None
    return found


def _rows(x: View, order: Sequence[int]) -> View | None:
    """The view as a matrix with dense rows, the dimensions in that order; None where strides do not express it."""
    if not same(x.strides[-1], 1) and not same(x.sizes[-1], 1):
        return None
    return x.permute(order).reshape((product(x.sizes[:-1]), x.sizes[-1]))


def _weight(lowering: Lowering, argument: Argument) -> torch.Tensor:
    weight = lowering.graph.constant(argument)
    assert weight is not None
    return weight


def _bias(node: Node) -> Argument:
    return node.args[2] if len(node.args) > 2 else node.keyword("bias")


_KINDS: dict[str, tuple[Callable[[Graph, Node], bool], Callable[[Lowering, Node], Anchor]]] = {
    "aten.linear.default": (_is_linear, _linear),
    "aten.matmul.default": (_is_any_product, _any_product),
    "aten.mm.default": (_is_any_product, _any_product),
    "aten.bmm.default": (_is_batched_product, _batched_product),
    "aten.conv1d.default": (is_convolution, convolution_anchor),
    "aten.conv2d.default": (is_convolution, convolution_anchor),
    "aten.conv2d.padding": (is_convolution, convolution_anchor),
    "aten.convolution.default": (is_convolution, convolution_anchor),
    "aten.max_pool2d.default": (is_pool, pool_anchor),
    "aten.avg_pool2d.default": (is_pool, pool_anchor),
    "aten.adaptive_avg_pool2d.default": (is_pool, pool_anchor),
    "aten.mean.dim": (is_pool, pool_anchor),
    "aten.addmm.default": (_is_addition_of_product, _addition_of_product),
}
"""By operator: whether it fits, and its kernel."""
