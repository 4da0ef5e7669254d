"""Ranges and guards: what torch.export found out about sizes, in the graph's own symbols."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy
from torch.export import ExportedProgram

from taut.errors import ExportError
from taut.graph._symbols import Translation
from taut.graph._types import Dim, Graph, Guard, SymbolRange, TensorType

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: sympy.floor(a / b),
    ast.Mod: sympy.Mod,
    ast.Pow: sympy.Pow,
    ast.USub: lambda a: -a,
    ast.Not: sympy.Not,
    ast.And: sympy.And,
    ast.Or: sympy.Or,
    ast.Eq: sympy.Eq,
    ast.NotEq: sympy.Ne,
    ast.Lt: sympy.Lt,
    ast.LtE: sympy.Le,
    ast.Gt: sympy.Gt,
    ast.GtE: sympy.Ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"max": sympy.Max, "min": sympy.Min, "abs": sympy.Abs}


def ranges_of(program: ExportedProgram, translation: Translation) -> dict[str, SymbolRange]:
    """The range of each symbol that the graph uses."""
    ranges = {}
    for old, new in translation.names.items():
        interval: Any = program.range_constraints.get(old)
        lower, upper = (0, sympy.oo) if interval is None else (interval.lower, interval.upper)
        lower = max(int(lower), 0) if lower > -(2**62) else 0
        ranges[new.name] = SymbolRange(lower, int(upper) if upper < 2**62 else None, translation.backed[new.name])
    return dict(sorted(ranges.items()))


def guards_of(program: ExportedProgram, graph: Graph) -> tuple[Guard, ...]:
    """The relations over sizes that tracing relied on and that ranges and types do not already say.

    torch keeps them as Python text over the arguments, e.g. "L['x'].size()[0] % 4 == 0", which is parsed here, not run.

    Args:
        program: the exported program, also when loaded from a file.
        graph: its graph, for the symbols behind the sizes.

    Raises:
        ExportError: if a guard has a form that is not understood; none is ever dropped.
    """
    sizes: dict[str, tuple[Dim, ...]] = {}
    for node in graph.inputs:
        kind = graph.nodes[node].outputs[0]
        name = str(graph.nodes[node].args[0])
        sizes[name.replace(".", "_")] = kind.shape if isinstance(kind, TensorType) else (kind.expression,)  # pyright: ignore
    kept: dict[sympy.Basic, Guard] = {}
    for text in getattr(program, "_guards_code", None) or ():
        try:
            condition = sympy.sympify(_parse(ast.parse(text.strip(), mode="eval").body, sizes))
        except (SyntaxError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ExportError(
                f"the exported program relies on {text!r}, which a graph cannot hold",
                fix="give the dimensions explicit ranges with torch.export.Dim(name, min=2, max=...)",
            ) from error
        if condition == sympy.false:
            raise ExportError(f"the exported program relies on {text!r}, which never holds")
        if condition != sympy.true and not _implied(condition, graph.symbols):
            kept.setdefault(condition, Guard(condition, "torch.export"))
    return tuple(kept.values())


def _parse(node: ast.expr, sizes: Mapping[str, tuple[Any, ...]]) -> Any:
    match node:
        case ast.Constant(value=int() | bool() | float() as value):
            return sympy.sympify(value)
        case ast.BinOp():
            return _OPERATORS[type(node.op)](_parse(node.left, sizes), _parse(node.right, sizes))
        case ast.UnaryOp():
            return _OPERATORS[type(node.op)](_parse(node.operand, sizes))
        case ast.BoolOp():
            return _OPERATORS[type(node.op)](*(_parse(value, sizes) for value in node.values))
        case ast.Compare(ops=[operator]):
            return _OPERATORS[type(operator)](_parse(node.left, sizes), _parse(node.comparators[0], sizes))
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_parse(argument, sizes) for argument in node.args))
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=argument, attr="size"), args=[]), slice=ast.Constant(value=int(dim))
        ):
            return sympy.sympify(sizes["_".join(_path(argument))][dim])
        case ast.Subscript():
            (number,) = sizes["_".join(_path(node))]
            return number
    raise ValueError(ast.dump(node))


def _path(node: ast.expr) -> list[str]:
    """The keys in "L['features'][0]"."""
    match node:
        case ast.Name(id="L"):
            return []
        case ast.Subscript(slice=ast.Constant(value=key)):
            return [*_path(node.value), str(key)]
    raise ValueError(ast.dump(node))


def _implied(condition: sympy.Basic, ranges: Mapping[str, SymbolRange]) -> bool:
    """Whether a relation of one symbol follows from that symbol's range."""
    symbols = list(condition.free_symbols)
    if len(symbols) != 1 or not isinstance(condition, sympy.core.relational.Relational):
        return False
    limits = ranges[str(symbols[0])]
    interval = sympy.Interval(limits.lower, sympy.oo if limits.upper is None else limits.upper)
    try:
        solutions = condition.as_set()
        return bool(interval.is_subset(solutions)) if solutions is not None else False
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return False


_REQUESTED = "was requested from"


def requested_from(graph: Graph) -> dict[str, int]:
    """The smaller size that was asked for, of each symbol that tracing cut to sizes from 2 on."""
    found = (re.match(rf"(\w+) {_REQUESTED} (\d+);", guard.source) for guard in graph.guards)
    return {match[1]: int(match[2]) for match in found if match}


def without_zero_and_one(graph: Graph) -> Graph:
    """The graph with input sizes of 2 and more only, and a note for each that was requested from 0 or 1.

    Tracing takes `size == 1` and `size == 0` for false without recording it, so a branch or a broadcast that depends
    on it would be silently wrong there.
    """
    symbols = dict(graph.symbols)
    notes = []
    for node in graph.inputs:
        kind = graph.nodes[node].outputs[0]
        sizes = kind.shape if isinstance(kind, TensorType) else (kind.expression,)
        for size in sizes:
            limits = symbols.get(size.name) if isinstance(size, sympy.Symbol) else None
            if isinstance(size, sympy.Symbol) and limits is not None and limits.lower < 2:
                if limits.upper is not None and limits.upper < 2:
                    raise ExportError(
                        f"input {graph.nodes[node].args[0]} was requested with sizes up to {limits.upper} only",
                        fix="leave the dimension out of dynamic_shapes",
                    )
                symbols[size.name] = dataclasses.replace(limits, lower=2)
                notes.append(
                    f"{size} {_REQUESTED} {limits.lower}; tracing covers sizes from 2, so capture the model "
                    "again without that dynamic dimension to serve 0 or 1"
                )
    guards = (*graph.guards, *(Guard(sympy.true, note) for note in notes))
    return dataclasses.replace(graph, symbols=symbols, guards=guards)
