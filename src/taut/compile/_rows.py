"""Operators that reduce or normalise along dimensions, as expressions with row reductions."""

from __future__ import annotations

import torch

from taut.compile._dims import free_symbols, plain, product
from taut.compile._pointwise import Expressions, Operand, Unsupported, Value
from taut.graph import Argument, Dim, Graph, Node, Ref, TensorType, evaluate

_REDUCTIONS = {
    "sum": "row_sum",
    "mean": "row_sum",
    "amax": "row_max",
    "amin": "row_min",
    "linalg_vector_norm": "row_sum",
}
_MOMENTS = frozenset({"var", "std"})
_SOFTMAX = frozenset({"softmax", "_softmax", "log_softmax", "_log_softmax"})
_NORMS = frozenset({"layer_norm", "rms_norm"})


def is_row(graph: Graph, node: Node) -> bool:
    """Whether `row_expression` knows the node."""
    if (
        not node.op.startswith("aten.")
        or node.op.split(".")[1] not in _REDUCTIONS.keys() | _MOMENTS | _SOFTMAX | _NORMS
    ):
        return False
    kinds = [graph.value_type(ref) for ref in node.inputs]
    if len(node.outputs) != 1 or any(not isinstance(kind, TensorType) or kind.dtype != torch.float32 for kind in kinds):
        return False
    if node.type.dtype != torch.float32 or not row_dimensions(graph, node):
        return False
    first = kinds[0]
    if not isinstance(first, TensorType) or any(size == 0 for size in first.shape):
        return False
    if node.op.startswith("aten.mean") and _may_be_empty(graph, [first.shape[i] for i in row_dimensions(graph, node)]):
        return False  # kernels take a division by 0 for 0
    if node.op.split(".")[1] in _SOFTMAX and all(first.shape[axis] == 1 for axis in row_dimensions(graph, node)):
        return False  # the exponent x - x would be 0 for NaN too
    try:
        row_expression(graph, node, Expressions(), lambda _: Value(0, torch.float32))
    except Unsupported:
        return False
    return True


def _may_be_empty(graph: Graph, sizes: list[Dim]) -> bool:
    """Whether the least values of the symbols make one of the sizes 0; a region's symbols are taken for larger."""
    lower = {name: limits.lower for name, limits in graph.symbols.items()}
    known = [size for size in sizes if {str(symbol) for symbol in free_symbols(size)} <= lower.keys()]
    return any(evaluate(size, lower) == 0 for size in known)


def row_dimensions(graph: Graph, node: Node) -> tuple[int, ...]:
    """The dimensions of the argument along which the node reduces, ascending."""
    kind = graph.value_type(node.inputs[0])
    rank = len(kind.shape) if isinstance(kind, TensorType) else 0
    name = node.op.split(".")[1]
    if node.op in ("aten.var.default", "aten.std.default"):
        return ()
    if name in _NORMS:
        shape = node.args[1]
        return tuple(range(rank - len(shape), rank)) if isinstance(shape, tuple) else ()
    chosen = _argument(node, _after(name), "dim", None)
    if chosen is None or chosen == ():
        return tuple(range(rank))
    axes = chosen if isinstance(chosen, tuple) else (chosen,)
    return tuple(sorted(axis % rank for axis in axes if isinstance(axis, int)))


def row_expression(graph: Graph, node: Node, made: Expressions, operand: Operand) -> Value:
    """Append the node's computation.

    Raises:
        Unsupported: if it is no expression.
    """
    name = node.op.split(".")[1]
    first = node.args[0]
    if not isinstance(first, Ref):
        raise Unsupported(node.op)
    x = operand(first).entry
    if name in _SOFTMAX:
        return Value(_softmax(name, made, x), torch.float32)
    if name in _NORMS:
        return Value(_norm(graph, node, made, x, operand), torch.float32)
    if node.keyword("dtype") not in (None, torch.float32):
        raise Unsupported(node.op)
    if name == "linalg_vector_norm":
        if _argument(node, 1, "ord", 2) != 2:
            raise Unsupported(node.op)
        x = made.add("mul", x, x)
    if name in _MOMENTS:
        return Value(_moment(graph, node, made, x), torch.float32)
    reduced = made.add(_REDUCTIONS[name], x)
    if name == "linalg_vector_norm":
        reduced = made.add("sqrt", reduced)
    if name == "mean":
        reduced = made.add("div", reduced, _count(graph, node, made))
    return Value(reduced, torch.float32)


def keeps_dimensions(node: Node) -> bool:
    """Whether a reduction's result has size 1 where it reduced."""
    name = node.op.split(".")[1]
    return _argument(node, 3 if name in _MOMENTS else _after(name) + 1, "keepdim", False) is True


def _after(name: str) -> int:
    """The position of the dimensions among the arguments."""
    return 2 if name == "linalg_vector_norm" else 1


def is_reduction(node: Node) -> bool:
    """Whether the result has one element for each row."""
    return node.op.startswith("aten.") and node.op.split(".")[1] in _REDUCTIONS.keys() | _MOMENTS


def _softmax(name: str, made: Expressions, x: int) -> int:
    shifted = made.add("sub", x, made.add("row_max", x))
    exponential = made.add("exp", shifted)
    total = made.add("row_sum", exponential)
    if "log" in name:
        return made.add("sub", shifted, made.add("log", total))
    return made.add("mul", exponential, made.add("reciprocal", total))


def _moment(graph: Graph, node: Node, made: Expressions, x: int) -> int:
    """Variance or standard deviation, the sum of squares divided by the number of elements less a correction."""
    given = int(_argument(node, 2, "unbiased", True) is not False)
    correction = given if node.op.endswith(".dim") else node.keyword("correction", 1)
    correction = 1 if correction is None else correction
    if not isinstance(correction, (int, float)) or _least_count(graph, node) <= correction:
        raise Unsupported(node.op)
    count = _count(graph, node, made)
    x = made.add("sub", x, made.add("div", made.add("row_sum", x), count))
    free = made.add("sub", count, made.add("constant", float(correction)))
    variance = made.add("div", made.add("row_sum", made.add("mul", x, x)), free)
    return made.add("sqrt", variance) if node.op.startswith("aten.std") else variance


def _least_count(graph: Graph, node: Node) -> int:
    """The fewest elements that a row may have; 0 where the graph does not tell."""
    kind = graph.value_type(node.inputs[0])
    assert isinstance(kind, TensorType)
    elements = product(plain(kind.shape[axis]) for axis in row_dimensions(graph, node))
    lower = {name: limits.lower for name, limits in graph.symbols.items()}
    return evaluate(elements, lower) if {str(symbol) for symbol in free_symbols(elements)} <= lower.keys() else 0


def _norm(graph: Graph, node: Node, made: Expressions, x: int, operand: Operand) -> int:
    count = _count(graph, node, made)
    if node.op.startswith("aten.layer_norm"):
        weight, bias = _argument(node, 2, "weight", None), _argument(node, 3, "bias", None)
        epsilon = _argument(node, 4, "eps", 1e-5)
        x = made.add("sub", x, made.add("div", made.add("row_sum", x), count))
    else:
        weight, bias = _argument(node, 2, "weight", None), None
        epsilon = _argument(node, 3, "eps", None)
        epsilon = torch.finfo(torch.float32).eps if epsilon is None else epsilon
    if not isinstance(epsilon, (int, float)):
        raise Unsupported(node.op)
    variance = made.add("div", made.add("row_sum", made.add("mul", x, x)), count)
    scale = made.add("rsqrt", made.add("add", variance, made.add("constant", float(epsilon))))
    x = made.add("mul", x, scale)
    if isinstance(weight, Ref):
        x = made.add("mul", x, operand(weight).entry)
    if isinstance(bias, Ref):
        x = made.add("add", x, operand(bias).entry)
    return x


def _count(graph: Graph, node: Node, made: Expressions) -> int:
    """The number of elements of a row."""
    kind = graph.value_type(node.inputs[0])
    assert isinstance(kind, TensorType)
    elements = product(plain(kind.shape[axis]) for axis in row_dimensions(graph, node))
    if isinstance(elements, int):
        return made.add("constant", float(elements))
    return made.add("row_sum", made.add("constant", 1.0))


def _argument(node: Node, position: int, name: str, default: Argument) -> Argument:
    return node.args[position] if position < len(node.args) else node.keyword(name, default)
