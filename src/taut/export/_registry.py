"""Which function writes which operator, and the binding of an operator's arguments to its schema."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from taut.errors import ExportError
from taut.graph import Node

Converter = Callable[..., Any]
"""Takes the writer, then each argument of the operator's schema in its order; returns the names of the results."""

CONVERTERS: dict[str, Converter] = {}


def converts(*ops: str) -> Callable[[Converter], Converter]:
    """Register a converter; a name without namespace is one of ATen, one without overload the default one."""

    def register(function: Converter) -> Converter:
        for op in ops:
            name = op if op.count(".") > 1 or op.startswith("sym.") else f"aten.{op}"
            CONVERTERS[name if "." in name.split(".", 1)[1] or op.startswith("sym.") else f"{name}.default"] = function
        return function

    return register


def bind(node: Node, args: tuple[Any, ...], keywords: dict[str, Any]) -> list[Any]:
    """Every argument of the operator's schema in order, defaults filled in."""
    if node.op.startswith("sym."):
        return list(args)
    schema = operator.attrgetter(node.op)(torch.ops)._schema
    bound = []
    for index, argument in enumerate(schema.arguments):
        if index < len(args):
            bound.append(args[index])
        else:
            bound.append(keywords.get(argument.name, argument.default_value if argument.has_default_value() else None))
    return bound


def unsupported(node: Node, reason: str, *, fix: str | None = None) -> NoReturn:
    """Refuse an operator.

    Raises:
        ExportError: always, naming the operator and where it comes from.
    """
    place = " ".join(part for part in (node.module_path, f"({node.source})" if node.source else "") if part)
    raise ExportError(f"{node.op} at {place or f'node {node.id}'}: {reason}", fix=fix)
