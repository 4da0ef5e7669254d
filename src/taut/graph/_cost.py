"""What an operation costs: multiply-accumulates, parameters and bytes, as expressions over the graph's symbols."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import sympy

from taut.errors import GraphError
from taut.graph._decode import DECODE
from taut.graph._policy import is_torch_operator, resolve
from taut.graph._trips import trip_count
from taut.graph._types import Argument, Dim, Graph, Node, Ref, TensorType, references


@dataclasses.dataclass(frozen=True, slots=True)
class OperationCost:
    """The cost of an operation or a graph.

    Attributes:
        macs: multiply-accumulates of matrix products, convolutions, attention and recurrent layers; half of what
            torch's FlopCounterMode counts.
        parameters: elements of the parameters used; a tied parameter counts once, buffers do not count.
        bytes_read: bytes of inputs and constants read; a view reads nothing, a gather reads what it takes.
        bytes_written: bytes of outputs.
        exact: False where a branch was taken to be its dearer side, or a loop of unknown length to run once.
    """

    macs: Dim
    parameters: int
    bytes_read: Dim
    bytes_written: Dim
    exact: bool = True


def operation_cost(graph: Graph, node: Node) -> OperationCost:
    """The cost of one operation, its regions included.

    Args:
        graph: the graph.
        node: one of its nodes.

    Returns:
        The cost, in the graph's symbols; `evaluate` gives numbers.

    Raises:
        GraphError: if the shapes of its arguments do not fit the operator.
    """
    parameters = sum(_parameters(graph, [node]).values())
    if node.regions:
        return dataclasses.replace(_control_flow_cost(graph, node), parameters=parameters)
    if not is_torch_operator(node.op) or _is_view(node.op) or node.op == DECODE:
        return OperationCost(0, parameters, 0, 0)
    formula = _MACS.get(_name(node.op))
    try:
        macs = formula(graph, node) if formula else 0
    except (IndexError, TypeError, ValueError) as error:
        raise GraphError(f"node %{node.id} {node.op} has arguments of shapes that it cannot take") from error
    read: Dim = sum((_bytes(graph.value_type(ref)) for ref in dict.fromkeys(_read(graph, node))), 0)
    written: Dim = sum((_bytes(kind) for kind in node.outputs), 0)
    if _name(node.op) in _GATHERS:
        read = read + _gathered(graph, node, written)
    return OperationCost(macs, parameters, read, written)


def graph_cost(graph: Graph) -> OperationCost:
    """The cost of a whole graph; parameters used by several operations count once.

    Args:
        graph: the graph.

    Returns:
        The cost, in the graph's symbols.
    """
    costs = [operation_cost(graph, node) for node in graph.nodes]
    return OperationCost(
        sum((cost.macs for cost in costs), 0),
        sum(_parameters(graph, graph.nodes).values()),
        sum((cost.bytes_read for cost in costs), 0),
        sum((cost.bytes_written for cost in costs), 0),
        all(cost.exact for cost in costs),
    )


def _parameters(graph: Graph, nodes: Iterable[Node]) -> dict[tuple[Argument, ...], int]:
    """The number of elements of each parameter that the nodes use, regions included."""
    found: dict[tuple[Argument, ...], int] = {}
    for node in nodes:
        for ref in node.inputs:
            constant = graph.nodes[ref.node]
            if constant.op == "constant" and constant.keyword("buffer") is not True:
                found[constant.args] = graph.constants[str(constant.args[0])].numel()
        for region in node.regions:
            found |= _parameters(region, region.nodes)
    return found


def _control_flow_cost(graph: Graph, node: Node) -> OperationCost:
    costs = [graph_cost(region) for region in node.regions]
    if node.op == "cond":
        first, second = costs
        exact = first.exact and second.exact and first.macs == second.macs
        return OperationCost(
            _larger(first.macs, second.macs),
            0,
            _larger(first.bytes_read, second.bytes_read),
            _larger(first.bytes_written, second.bytes_written),
            exact,
        )
    trips = trip_count(graph, node)
    known = trips is not None
    count: Dim = trips if trips is not None else 1
    body = OperationCost(
        sum((cost.macs for cost in costs), 0),
        0,
        sum((cost.bytes_read for cost in costs), 0),
        sum((cost.bytes_written for cost in costs), 0),
        all(cost.exact for cost in costs),
    )
    return OperationCost(
        body.macs * count, 0, body.bytes_read * count, body.bytes_written * count, body.exact and known
    )


def _larger(first: Dim, second: Dim) -> Dim:
    if isinstance(first, int) and isinstance(second, int):
        return max(first, second)
    return sympy.Max(first, second)


def _name(op: str) -> str:
    return op.split(".")[1]


def _is_view(op: str) -> bool:
    """Whether an operator only gives another view of its input."""
    returns = resolve(op)._schema.returns
    return bool(returns) and all(item.alias_info is not None for item in returns)


def _read(graph: Graph, node: Node) -> list[Ref]:
    """The tensors that an operation reads whole; of a gather's source it reads only what it takes."""
    source = _GATHERS.get(_name(node.op))
    arguments = [value for position, value in enumerate(node.args) if position != source]
    used = references((arguments, tuple(value for _, value in node.kwargs)))
    return [ref for ref in used if isinstance(graph.value_type(ref), TensorType)]


def _gathered(graph: Graph, node: Node, written: Dim) -> Dim:
    """Bytes that a gather reads of its source: what it writes, or as many rows of an encoded table."""
    if _name(node.op) != "encoded_embedding":
        return written
    rows = _elements(_shape(graph, node.args[0]))
    return rows * sum(_elements(_shape(graph, ref)[1:]) for ref in references(node.args[1]))


def _bytes(kind: object) -> Dim:
    return _elements(kind.shape) * kind.dtype.itemsize if isinstance(kind, TensorType) else 0


def _elements(shape: Sequence[Dim]) -> Dim:
    return math.prod(shape, start=1)  # pyright: ignore - integers and expressions multiply


def _shape(graph: Graph, argument: Argument) -> tuple[Dim, ...]:
    kind = graph.value_type(argument) if isinstance(argument, Ref) else None
    return kind.shape if isinstance(kind, TensorType) else ()


def _product(position: int) -> Callable[[Graph, Node], Dim]:
    """A matrix product: each output sums over the last dimension of the argument at `position`."""
    return lambda graph, node: _elements(node.type.shape) * _shape(graph, node.args[position])[-1]


def _convolution(graph: Graph, node: Node) -> Dim:
    weight = 2 if node.op.endswith("_pointwise.binary") else 1
    window = _elements(_shape(graph, node.args[weight])[1:])
    transposed = "transpose" in node.op or (_name(node.op) == "convolution" and node.args[6] is True)
    return _elements(_shape(graph, node.args[0]) if transposed else node.type.shape) * window


def _attention(graph: Graph, node: Node) -> Dim:
    query, key, value = (_shape(graph, item) for item in node.args[:3])
    return _elements(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(graph: Graph, node: Node) -> Dim:
    """Each token meets each weight matrix once; torch's FlopCounterMode does not see the fused CPU kernel."""
    weights = [_shape(graph, ref) for ref in references(node.args[2])]
    return _elements(_shape(graph, node.args[0])[:-1]) * sum(_elements(w) for w in weights if len(w) == 2)


def _recurrent_cell(graph: Graph, node: Node) -> Dim:
    weights = _elements(_shape(graph, node.args[2])) + _elements(_shape(graph, node.args[3]))
    return _elements(_shape(graph, node.args[0])[:-1]) * weights


def _bilinear(graph: Graph, node: Node) -> Dim:
    return _elements(node.type.shape) * _elements(_shape(graph, node.args[2])[1:])


def _packed_convolution(graph: Graph, node: Node) -> Dim:
    """Each output sums over the input's channels and the window; the packed weight's shape does not tell."""
    channels, window = _shape(graph, node.args[0])[1], node.args[4]
    assert isinstance(window, tuple)
    return _elements(node.type.shape) * channels * math.prod(size for size in window if isinstance(size, int))


_GATHERS = {
    **dict.fromkeys(("embedding", "embedding_bag", "_embedding_bag", "index_select", "gather", "index", "take"), 0),
    "encoded_embedding": 1,
}
"""Operators that read part of an argument, by its position."""
_MACS: dict[str, Callable[[Graph, Node], Dim]] = {
    **dict.fromkeys(
        ("linear", "int8_linear", "vector_linear", "_linear_pointwise", "mm", "bmm", "matmul", "mv", "dot", "_int_mm"),
        _product(0),
    ),
    **dict.fromkeys(("int8_convolution", "vector_convolution"), _packed_convolution),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product(1)),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution_pointwise"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _recurrent_cell),
    "scaled_dot_product_attention": _attention,
    "bilinear": _bilinear,
}
