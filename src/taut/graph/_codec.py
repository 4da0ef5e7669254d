"""The JSON form of a graph: every value as a tagged list that our own code parses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import sympy
import torch

from taut.errors import ArtefactError
from taut.graph._expressions import MAXIMAL_DEPTH, bounded, decode_expression, encode_expression, hexadecimal
from taut.graph._types import Argument, Graph, Guard, Node, Ref, ScalarType, SymbolRange, TensorType, Tree, ValueType

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)
}
_LAYOUTS = {"strided": torch.strided}
_FORMATS = {
    str(item).removeprefix("torch."): item
    for item in (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
}


def encode_argument(value: Argument) -> Any:
    """An argument: None, booleans, integers and strings as they are, the rest tagged."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return ["float", value.hex() if math.isfinite(value) else str(value)]
    if isinstance(value, Ref):
        return ["%", value.node, value.output]
    if isinstance(value, tuple):
        return ["tuple", *map(encode_argument, value)]
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    if isinstance(value, torch.device):
        return ["device", value.type]
    if isinstance(value, torch.layout):
        return ["layout", str(value).removeprefix("torch.")]
    return ["memory_format", str(value).removeprefix("torch.")]


def decode_argument(data: Any, depth: int = 0) -> Argument:
    """The argument from its JSON form.

    Raises:
        ArtefactError: if it is malformed.
    """
    if data is None or isinstance(data, (bool, str)):
        return data
    if isinstance(data, int):
        return bounded(data)
    if not isinstance(data, list) or not data or not isinstance(data[0], str) or depth > MAXIMAL_DEPTH:
        raise ArtefactError(f"malformed argument {str(data)[:80]}")
    tag, operands = data[0], data[1:]
    if tag == "tuple":
        return tuple(decode_argument(item, depth + 1) for item in operands)
    if tag == "%" and len(operands) == 2:
        return decode_ref(data)
    if len(operands) == 1 and isinstance(operands[0], str):
        text = operands[0]
        if tag == "float":
            return hexadecimal(text)
        if tag == "device" and text in ("cpu", "cuda", "mps", "xpu", "meta"):
            return torch.device(text)
        table: Mapping[str, Argument] = {"dtype": DTYPES, "layout": _LAYOUTS, "memory_format": _FORMATS}.get(tag, {})
        if text in table:
            return table[text]
    raise ArtefactError(f"malformed argument {str(data)[:80]}")


def decode_ref(data: Any) -> Ref:
    """A reference ["%", node, output]."""
    if not (isinstance(data, list) and len(data) == 3 and data[0] == "%" and all(type(i) is int for i in data[1:])):
        raise ArtefactError(f"malformed reference {str(data)[:80]}")
    return Ref(bounded(data[1]), bounded(data[2]))


def encode_type(kind: ValueType) -> Any:
    """["tensor", shape, dtype, layout] or ["scalar", kind, expression]."""
    if isinstance(kind, TensorType):
        shape = [size if isinstance(size, int) else encode_expression(size) for size in kind.shape]
        return ["tensor", shape, str(kind.dtype).removeprefix("torch."), kind.layout]
    return ["scalar", kind.kind, None if kind.expression is None else encode_expression(kind.expression)]


def decode_type(data: Any) -> ValueType:
    """The type from its JSON form."""
    match data:
        case ["tensor", list(shape), str(dtype), "contiguous" | "channels_last" as layout] if dtype in DTYPES:
            sizes = (decode_expression(size) for size in shape)
            dims = tuple(int(size) if isinstance(size, sympy.Integer) else size for size in sizes)
            return TensorType(dims, DTYPES[dtype], layout)  # pyright: ignore - validated as integers or expressions
        case ["scalar", "int" | "float" | "bool" as kind, expression]:
            return ScalarType(kind, None if expression is None else decode_expression(expression))
    raise ArtefactError(f"malformed type {str(data)[:80]}")


def encode_tree(tree: Tree) -> Any:
    """An output structure."""
    if isinstance(tree, list):
        return ["list", *map(encode_tree, tree)]
    if isinstance(tree, tuple):
        return ["tuple", *map(encode_tree, tree)]
    if isinstance(tree, Mapping):
        return ["dict", *([key, encode_tree(value)] for key, value in tree.items())]
    return encode_argument(tree)


def decode_tree(data: Any, depth: int = 0) -> Tree:
    """The output structure from its JSON form."""
    if depth > MAXIMAL_DEPTH:
        raise ArtefactError("the output structure is nested too deep")
    match data:
        case ["list", *items]:
            return [decode_tree(item, depth + 1) for item in items]
        case ["tuple", *items]:
            return tuple(decode_tree(item, depth + 1) for item in items)
        case ["dict", *items]:
            pairs = [item for item in items if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)]
            if len(pairs) != len(items):
                raise ArtefactError(f"malformed output structure {str(data)[:80]}")
            return {key: decode_tree(value, depth + 1) for key, value in pairs}
    value = decode_argument(data)
    if isinstance(value, (tuple, torch.dtype, torch.device, torch.layout, torch.memory_format)):
        raise ArtefactError(f"malformed output structure {str(data)[:80]}")
    return value


def encode_graph(graph: Graph) -> dict[str, Any]:
    """The graph without its constants' content."""
    return {
        "symbols": {name: [limits.lower, limits.upper, limits.backed] for name, limits in graph.symbols.items()},
        "guards": [[encode_expression(guard.condition), guard.source] for guard in graph.guards],
        "inputs": list(graph.inputs),
        "outputs": encode_tree(graph.outputs),
        "nodes": [_encode_node(node) for node in graph.nodes],
    }


def _encode_node(node: Node) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "op": node.op,
        "args": [encode_argument(item) for item in node.args],
        "kwargs": {name: encode_argument(value) for name, value in node.kwargs},
        "outputs": [encode_type(kind) for kind in node.outputs],
        "regions": [encode_graph(region) | {"constants": sorted(region.constants)} for region in node.regions],
        "module_path": node.module_path,
        "source": node.source,
    }
    return {name: value for name, value in fields.items() if value or name in ("op", "args")}


def decode_graph(data: Any, constants: Mapping[str, torch.Tensor], depth: int = 0) -> Graph:
    """The graph from its JSON form; `constants` are the tensors by content hash.

    Raises:
        ArtefactError: if a part is missing or malformed.
    """
    if depth > 16 or not isinstance(data, dict):
        raise ArtefactError("malformed graph")
    nodes = tuple(_decode_node(item, index, constants, depth) for index, item in enumerate(_part(data, "nodes", list)))
    inputs = tuple(_part(data, "inputs", list))
    if not all(type(item) is int and 0 <= item < len(nodes) for item in inputs):
        raise ArtefactError("malformed list of inputs")
    used = {str(node.args[0]) for node in nodes if node.op == "constant" and node.args}
    return Graph(
        nodes,
        inputs,
        decode_tree(data.get("outputs")),
        {key: tensor for key, tensor in constants.items() if key in used},
        {_name(name): _range(limits) for name, limits in _part(data, "symbols", dict).items()},
        tuple(_guard(item) for item in _part(data, "guards", list)),
    )


def _decode_node(data: Any, index: int, constants: Mapping[str, torch.Tensor], depth: int) -> Node:
    if not isinstance(data, dict) or not data.keys() <= {
        *("op", "args", "kwargs", "outputs", "regions", "module_path", "source")
    }:
        raise ArtefactError(f"node {index} is malformed")
    try:
        return Node(
            index,
            _part(data, "op", str),
            tuple(decode_argument(item) for item in _part(data, "args", list)),
            tuple(sorted((name, decode_argument(value)) for name, value in data.get("kwargs", {}).items())),
            tuple(decode_type(item) for item in data.get("outputs", [])),
            tuple(decode_graph(item, constants, depth + 1) for item in data.get("regions", [])),
            _part(data, "module_path", str, ""),
            _part(data, "source", str, ""),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ArtefactError(f"node {index} is malformed: {error}") from error


def _part(data: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = data.get(name, default)
    if not isinstance(value, kind):
        raise ArtefactError(f"the graph's {name!r} is missing or malformed", expected=kind.__name__)
    return value


def _name(name: str) -> str:
    decode_expression(name)
    return name


def _range(data: Any) -> SymbolRange:
    match data:
        case [int(lower), (int() | None) as upper, bool(backed)]:
            return SymbolRange(bounded(lower), None if upper is None else bounded(upper), backed)
    raise ArtefactError(f"malformed range {str(data)[:80]}")


def _guard(data: Any) -> Guard:
    match data:
        case [condition, str(source)]:
            return Guard(decode_expression(condition), source)
    raise ArtefactError(f"malformed guard {str(data)[:80]}")
