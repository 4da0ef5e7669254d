"""Hashes that are the same in every process: of a graph's structure, and of an operation's cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sympy

from taut.errors import ArgumentError
from taut.graph._codec import encode_argument, encode_graph
from taut.graph._symbols import evaluate, symbol
from taut.graph._types import Argument, Dim, Graph, Node, Ref, ScalarType, ValueType


def structural_hash(graph: Graph) -> str:
    """A hash of what the graph computes: operations, types, ranges, guards, input names and constants' content.

    Constants' names, module paths and source lines do not count. Two graphs of the same model captured in different
    processes have the same hash.

    Args:
        graph: the graph.

    Returns:
        32 hex digits.
    """
    return _digest(_anonymous(encode_graph(graph)))


def cost_key(graph: Graph, node: Node, sizes: Mapping[str, int], *, threads: int, target: str) -> str:
    """A key under which the cost of an operation is stored, shared by all graphs where the same operation occurs.

    Args:
        graph: the graph.
        node: one of its nodes.
        sizes: the size of each symbol, as `bind_sizes` gives it. A data-dependent size that is missing stays symbolic.
        threads: the number of threads that the operation may use.
        target: what identifies the machine, such as a host fingerprint.

    Returns:
        The operator's name, a colon and 32 hex digits.
    """
    content = {
        "args": [_described(graph, item, sizes) for item in node.args],
        "kwargs": {name: _described(graph, value, sizes) for name, value in node.kwargs},
        "outputs": [_concrete(kind, sizes) for kind in node.outputs],
        "regions": [structural_hash(region) for region in node.regions],
        "sizes": {name: sizes[name] for name in sorted(sizes)} if node.regions else {},
        "threads": threads,
        "target": target,
    }
    return f"{node.op}:{_digest(content)}"


def _described(graph: Graph, argument: Argument, sizes: Mapping[str, int]) -> Any:
    if isinstance(argument, Ref):
        return ["value", _concrete(graph.value_type(argument), sizes)]
    if isinstance(argument, tuple):
        return [_described(graph, item, sizes) for item in argument]
    return encode_argument(argument)


def _concrete(kind: ValueType, sizes: Mapping[str, int]) -> Any:
    if isinstance(kind, ScalarType):
        known = {symbol(name): sympy.Integer(size) for name, size in sizes.items()}
        return [kind.kind, None if kind.expression is None else str(kind.expression.xreplace(known))]
    return [[_size(size, sizes) for size in kind.shape], str(kind.dtype), kind.layout]


def _size(size: Dim, sizes: Mapping[str, int]) -> int | str:
    try:
        return evaluate(size, sizes)
    except ArgumentError:
        return str(size)


def _anonymous(encoded: dict[str, Any]) -> dict[str, Any]:
    """The encoded graph without what only serves people."""
    nodes = []
    for node in encoded["nodes"]:
        kept = {name: value for name, value in node.items() if name not in ("module_path", "source")}
        if node["op"] == "constant":
            kept["args"] = node["args"][:1]
        if "regions" in node:
            kept["regions"] = [_anonymous(region) for region in node["regions"]]
        nodes.append(kept)
    guards = [condition for condition, _ in encoded["guards"]]
    return encoded | {"nodes": nodes, "guards": sorted(guards, key=str)}


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
