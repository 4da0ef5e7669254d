"""A graph as text."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
import torch

from taut.graph._inputs import between
from taut.graph._types import Argument, Graph, Node, Ref, ScalarType, Tree, ValueType

_SHORT = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32"}
_SHORT |= {"int16": "i16", "int8": "i8", "uint8": "u8"}


def format_graph(graph: Graph) -> str:
    """A listing of the graph: one line an operation, with types, module path and source line.

    Args:
        graph: the graph.

    Returns:
        Several lines; parameters and buffers appear by name where they are used.
    """
    return "\n".join(_lines(graph, ""))


def _lines(graph: Graph, indent: str) -> list[str]:
    inputs = ", ".join(
        f"{_reference(graph, Ref(node))}: {format_type(graph.nodes[node].outputs[0])}" for node in graph.inputs
    )
    lines = [f"{indent}graph({inputs})"]
    for name, limits in graph.symbols.items():
        lines.append(f"{indent}  where {between(name, limits)}" + ("" if limits.backed else ", known at run time"))
    for guard in graph.guards:
        note = guard.condition == sympy.true
        lines.append(f"{indent}  note: {guard.source}" if note else f"{indent}  guard {guard.condition}")
    for node in graph.nodes:
        if node.op not in ("input", "constant"):
            lines.append(f"{indent}  {_line(graph, node)}")
            for region in node.regions:
                lines += _lines(region, indent + "    ")
    return [*lines, f"{indent}  return {_tree(graph, graph.outputs)}"]


def _line(graph: Graph, node: Node) -> str:
    arguments = [_argument(graph, item) for item in node.args]
    arguments += [f"{name}={_argument(graph, value)}" for name, value in node.kwargs]
    text = f"{node.op}({', '.join(arguments)})"
    if node.outputs:
        text = f"%{node.id} = {text} -> {', '.join(map(format_type, node.outputs))}"
    origin = "  ".join(filter(None, (node.module_path, node.source)))
    return f"{text}  # {origin}" if origin else text


def format_type(kind: ValueType) -> str:
    """A type in short, e.g. "f32[s0, 8]"."""
    if isinstance(kind, ScalarType):
        return kind.kind if kind.expression is None else f"{kind.kind} {kind.expression}"
    name = str(kind.dtype).removeprefix("torch.")
    suffix = " channels_last" if kind.layout == "channels_last" else ""
    return f"{_SHORT.get(name, name)}[{', '.join(map(str, kind.shape))}]{suffix}"


def _reference(graph: Graph, ref: Ref) -> str:
    node = graph.nodes[ref.node]
    if node.op == "input":
        return str(node.args[0])
    if node.op == "constant":
        return f"@{node.args[1]}"
    return f"%{ref.node}" if len(node.outputs) == 1 else f"%{ref.node}.{ref.output}"


def _argument(graph: Graph, argument: Argument) -> str:
    if isinstance(argument, Ref):
        return _reference(graph, argument)
    if isinstance(argument, tuple):
        return f"[{', '.join(_argument(graph, item) for item in argument)}]"
    if isinstance(argument, torch.dtype):
        return str(argument).removeprefix("torch.")
    return repr(argument)


def _tree(graph: Graph, tree: Tree) -> str:
    if isinstance(tree, Ref):
        return _reference(graph, tree)
    if isinstance(tree, (list, tuple)):
        return f"({', '.join(_tree(graph, item) for item in tree)})"
    if isinstance(tree, Mapping):
        return f"{{{', '.join(f'{key}: {_tree(graph, value)}' for key, value in tree.items())}}}"
    return repr(tree)
