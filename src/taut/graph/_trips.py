"""How often a loop's body runs, where the graph tells."""

from __future__ import annotations

import math

import sympy
import torch

from taut.graph._types import Argument, Dim, Graph, Node, Ref, ScalarType, TensorType

_COMPARISONS = {"lt": 0, "le": 1}
_ADDITIONS = frozenset({"aten.add.Tensor", "aten.add.Scalar", "sym.add"})


def trip_count(graph: Graph, node: Node) -> Dim | None:
    """The number of times that a control-flow operation's body runs, as an expression over the symbols.

    A `while_loop` is understood when its condition is `i < bound` or `i <= bound`, with `bound` fixed and `i` growing
    by a constant step from a known start.

    Args:
        graph: the graph.
        node: a control-flow node of it other than "cond".

    Returns:
        The count, or None where it depends on data.
    """
    if node.op == "invoke_subgraph":
        return 1
    if node.op in ("scan", "map", "associative_scan"):
        sequence = node.args[1 if node.op == "scan" else 0]
        first = sequence[0] if isinstance(sequence, tuple) and sequence else None
        kind = graph.value_type(first) if isinstance(first, Ref) else None
        if not isinstance(kind, TensorType):
            return None
        return kind.shape[0] - 1 if node.op == "associative_scan" else kind.shape[0]
    return _while_loop_trips(graph, node)


def _while_loop_trips(graph: Graph, node: Node) -> Dim | None:
    condition, body = node.regions
    operands = [item for group in node.args if isinstance(group, tuple) for item in group]
    carried = len(node.outputs)
    test = condition.nodes[condition.output_refs[0].node]
    inclusive = _COMPARISONS.get(test.op.split(".")[1]) if "." in test.op else None
    if inclusive is None or len(test.args) < 2:
        return None
    counter = _input_position(condition, test.args[0])
    if counter is None or counter >= carried:
        return None
    step = _step(body, counter)
    start = _number(graph, operands[counter])
    bound = _bound(graph, condition, test.args[1], operands, carried, body)
    if step is None or start is None or bound is None:
        return None
    distance = bound - start + inclusive
    if isinstance(distance, int):
        return max(0, math.ceil(distance / step))
    return sympy.Max(0, distance if step == 1 else sympy.ceiling(distance / step))


def _input_position(region: Graph, argument: Argument) -> int | None:
    """Which input of the region an argument is."""
    if isinstance(argument, Ref) and argument.node in region.inputs:
        return region.inputs.index(argument.node)
    return None


def _step(body: Graph, counter: int) -> int | None:
    """By how much the body advances the counter."""
    made = body.nodes[body.output_refs[counter].node]
    if made.op not in _ADDITIONS or made.kwargs:
        return None
    first, second = made.args[:2]
    if _input_position(body, first) == counter and type(second) is int and second > 0:
        return second
    return None


def _bound(
    graph: Graph, condition: Graph, argument: Argument, operands: list[Argument], carried: int, body: Graph
) -> Dim | None:
    """The value that the counter is compared with, if no iteration changes it."""
    position = _input_position(condition, argument)
    if position is None:
        return _number(condition, argument)
    if position < carried and _input_position(body, body.output_refs[position]) != position:
        return None
    return _number(graph, operands[position])


def _number(graph: Graph, argument: Argument) -> Dim | None:
    """The value of an argument that is an integer, a size or a constant tensor of one integer."""
    if isinstance(argument, int):
        return int(argument)
    if not isinstance(argument, Ref):
        return None
    kind = graph.value_type(argument)
    if isinstance(kind, ScalarType):
        expression = kind.expression
        if isinstance(expression, sympy.Integer):
            return int(expression)
        return expression if isinstance(expression, sympy.Expr) else None
    tensor = graph.constant(argument)
    if tensor is not None:
        return int(tensor.item()) if tensor.numel() == 1 and not torch.is_floating_point(tensor) else None
    made = graph.nodes[argument.node]
    if made.op in ("aten.zeros.default", "aten.ones.default") and kind.shape in ((), (1,)):
        return int(made.op == "aten.ones.default")
    if made.op in ("aten.full.default", "aten.scalar_tensor.default") and kind.shape in ((), (1,)):
        value = made.args[-1]
        return int(value) if isinstance(value, int) else None
    return None
