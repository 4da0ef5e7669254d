"""Control flow: ONNX's If and Loop, whose bodies see the values around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from taut.export._registry import unsupported
from taut.export._values import ELEMENT_TYPES, Value
from taut.export._writer import Writer
from taut.graph import Graph, Node, Ref

if TYPE_CHECKING:
    from onnx import GraphProto


def write_control_flow(w: Writer, node: Node, args: Sequence[Any]) -> tuple[str, ...]:
    """Write a node with regions; returns the names of its results.

    Raises:
        ExportError: the control flow has no counterpart in ONNX.
    """
    if node.op not in ("cond", "while_loop", "invoke_subgraph"):
        unsupported(node, "taut writes cond, while_loop and invoke_subgraph in ONNX", fix="unroll the loop")
    if node.op == "cond":
        return _write_branches(w, node, args[0], args[1])
    if node.op == "while_loop":
        return _write_loop(w, node, args[0], args[1])
    return tuple(w.name(value) for value in _inline(w, node.regions[0], args[0]))


def _inline(w: Writer, region: Graph, values: Sequence[Value]) -> list[Value]:
    from taut.export._model import write_region

    return write_region(w, region, {Ref(index): value for index, value in zip(region.inputs, values, strict=True)})


def _write_branches(w: Writer, node: Node, predicate: Value, operands: Sequence[Value]) -> tuple[str, ...]:
    bodies = [_body(w, "branch", [], lambda region=region: _inline(w, region, operands)) for region in node.regions]
    w.node = node
    condition = w.emit("Reshape", w.cast(predicate, torch.bool), w.integers([]))
    return w.emit_several("If", (condition,), len(node.outputs), then_branch=bodies[0], else_branch=bodies[1])


def _write_loop(w: Writer, node: Node, carried: Sequence[Value], others: Sequence[Value]) -> tuple[str, ...]:
    condition, body = node.regions
    count, more = w.fresh("iteration"), w.fresh("condition")
    state = [Value(w.fresh("state"), value.type) for value in carried]

    def step() -> list[Value]:
        made = _inline(w, body, [*state, *others])
        return [*_inline(w, condition, [*made, *others]), *made]

    from onnx import helper

    inputs = [helper.make_tensor_value_info(count, ELEMENT_TYPES[torch.int64], [])]
    inputs.append(helper.make_tensor_value_info(more, ELEMENT_TYPES[torch.bool], []))
    inputs += [helper.make_tensor_value_info(item.name, ELEMENT_TYPES[item.dtype], None) for item in state]
    graph = _body(w, "step", inputs, step)
    (first,) = _inline(w, condition, [*carried, *others])
    w.node = node
    return w.emit_several("Loop", (None, first, *carried), len(carried), body=graph)


def _body(w: Writer, name: str, inputs: Sequence[Any], write: Callable[[], list[Value]]) -> GraphProto:
    """The operations that `write` emits, as a graph of their own."""
    from onnx import helper

    outer, w.operations = w.operations, []
    w.depth += 1
    try:
        outputs = []
        for value in write():
            result = w.fresh(name)
            w.operations.append(helper.make_node("Identity", [w.name(value)], [result], result))
            outputs.append(helper.make_tensor_value_info(result, ELEMENT_TYPES[value.dtype], None))
        return helper.make_graph(w.operations, name, list(inputs), outputs)
    finally:
        w.operations = outer
        w.depth -= 1
