"""Sizes 0 and 1: tracing leaves them out, so they are served only where the graph was seen to be right there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from taut.errors import TautError
from taut.graph import Graph, InputChecker, Interpreter, TensorType, bind_sizes, evaluate, requested_from


def serve_small_sizes(
    graph: Graph, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None
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
    """
    asked = requested_from(graph)
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
