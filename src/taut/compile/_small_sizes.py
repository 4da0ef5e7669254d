"""Sizes 0 and 1: tracing leaves them out, so they are served only where the graph was seen to be right there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from taut.errors import TautError
from taut.graph import Graph, InputChecker, Interpreter, TensorType, bind_sizes, evaluate, requested_from


def serve_small_sizes(
    graph: Graph, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: Any
) -> Graph:
    """Extend the ranges of symbols down to 1 and 0 as far as that was asked for and gives what the model gives.

    torch.export takes a size for different from 0 and 1, so a branch or a broadcast that depends on it would be lost.
    The model itself and the graph are run at each of these sizes, one symbol after the other and all together, on the
    example inputs cut to size; a range is extended where results agree.

    Args:
        graph: the captured graph.
        model: the module it was captured from.
        args: the example inputs.
        kwargs: the example inputs by keyword.
        dynamic_shapes: as it was given for the capture.
    """
    asked = _asked(graph, dynamic_shapes) | requested_from(graph)
    if not asked:
        return graph
    flat = InputChecker(graph).bind(args, kwargs or {})
    sizes = bind_sizes(graph, *flat)
    wide = _with_lower(graph, dict.fromkeys(asked, 0))
    lower: dict[str, int] = {}
    for name, least in asked.items():
        served = 2
        for size in (1, 0):
            if (
                size < least
                or served != size + 1
                or not _agrees(wide, model, flat, (args, kwargs), sizes | {name: size})
            ):
                break
            served = size
        if served < 2:
            lower[name] = served
    together = sizes | dict.fromkeys(lower, 1)
    if len(lower) > 1 and not _agrees(wide, model, flat, (args, kwargs), together):
        return graph
    return _with_lower(graph, lower)


def _asked(graph: Graph, dynamic_shapes: Any) -> dict[str, int]:
    """The least size that was asked for, of each symbol that is served from 2 on; 0 where nothing was said."""
    asked: dict[str, int] = {}
    for position, node in enumerate(graph.inputs):
        kind = graph.nodes[node].outputs[0]
        for axis, size in enumerate(kind.shape if isinstance(kind, TensorType) else ()):
            if isinstance(size, sympy.Symbol) and graph.symbols[size.name].lower == 2:
                dim = _entry(dynamic_shapes, position, str(graph.nodes[node].args[0]), axis)
                asked[size.name] = max(asked.get(size.name, 0), int(getattr(dim, "min", 0) or 0))
    return {name: least for name, least in asked.items() if least < 2}


def _entry(dynamic_shapes: Any, position: int, name: str, axis: int) -> Any:
    """What `dynamic_shapes` says of a dimension."""
    first, *path = name.split(".")
    try:
        found = dynamic_shapes[first] if isinstance(dynamic_shapes, Mapping) else dynamic_shapes[position]
        for key in path:
            found = found[key] if isinstance(found, Mapping) else found[int(key)]
        return found.get(axis) if isinstance(found, Mapping) else found[axis]
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _with_lower(graph: Graph, lower: Mapping[str, int]) -> Graph:
    symbols = {
        name: dataclasses.replace(limits, lower=lower.get(name, limits.lower)) for name, limits in graph.symbols.items()
    }
    return dataclasses.replace(graph, symbols=symbols)


def _agrees(
    graph: Graph, model: torch.nn.Module, flat: list[Any], given: tuple[Any, Any], sizes: Mapping[str, int]
) -> bool:
    """Whether the graph gives what the model gives at these sizes."""
    inputs = []
    for node, value in zip(graph.inputs, flat, strict=True):
        kind = graph.nodes[node].outputs[0]
        inputs.append(
            _cut(value, [evaluate(size, sizes) for size in kind.shape]) if isinstance(kind, TensorType) else value
        )
    leaves, structure = pytree.tree_flatten(given)
    tensors = iter(inputs)
    args, kwargs = pytree.tree_unflatten([next(tensors) if leaf is not None else None for leaf in leaves], structure)
    training = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in training:
            module.training = False
        with torch.no_grad():
            expected = model(*args, **(kwargs or {}))
            found = Interpreter(graph)(*inputs)
    except (RuntimeError, ValueError, IndexError, TypeError, TautError):
        return False
    finally:
        for module, mode in training:
            module.training = mode
    pairs = list(zip(_tensors(expected), _tensors(found), strict=False))
    return len(_tensors(expected)) == len(_tensors(found)) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs
    )


def _cut(value: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """The tensor cut, or repeated, to a shape."""
    for axis, size in enumerate(shape):
        if size != value.shape[axis]:
            value = value.index_select(axis, torch.arange(size) % max(1, value.shape[axis]))
    return value


def _tensors(tree: object) -> list[torch.Tensor]:
    if hasattr(tree, "__dataclass_fields__"):
        tree = [getattr(tree, name) for name in tree.__dataclass_fields__]  # pyright: ignore
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
