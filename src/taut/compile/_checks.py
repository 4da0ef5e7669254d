"""What a program checks of its arguments: sizes against the model's symbols, and the model's guards."""

from __future__ import annotations

import dataclasses

import sympy

from taut.compile._block import Block
from taut.compile._dims import free_symbols, plain
from taut.compile._views import View
from taut.graph import Graph, SymbolRange


@dataclasses.dataclass(frozen=True)
class EntryCheck:
    """A relation that holds at entry.

    Attributes:
        condition: over the symbols.
        message: for the user; "{s0}" stands for the value of a symbol.
    """

    condition: sympy.Basic
    message: str


@dataclasses.dataclass(frozen=True)
class EntrySize:
    """A size of an argument that is no symbol of its own: it gets a name, and a check.

    Attributes:
        name: of the symbol that stands for it.
        position: of the argument.
        axis: its dimension; -1 for an integer itself.
    """

    name: str
    position: int
    axis: int


def entry_checks(block: Block, graph: Graph) -> tuple[list[EntrySize], list[tuple[str, sympy.Expr]], list[EntryCheck]]:
    """What function 0 checks.

    Returns:
        Sizes to bind; symbols that follow from them, with their values; and the checks, in order.
    """
    sizes: list[EntrySize] = []
    solved: list[tuple[str, sympy.Expr]] = []
    checks: list[EntryCheck] = []
    known = {name for name, _, _ in block.symbols}
    direct = {(position, axis) for _, position, axis in block.symbols}
    for name, position, axis in block.symbols:
        limits = graph.symbols.get(name, SymbolRange(0, None))
        checks += _range_checks(_where(graph, position, axis), name, limits)
    for position, item in enumerate(block.inputs):
        given = list(enumerate(item.sizes)) if isinstance(item, View) else [(-1, item)]
        for axis, expected in given:
            if (position, axis) in direct:
                continue
            size = EntrySize(
                f"{_name(graph, position)}_{axis}" if axis >= 0 else _name(graph, position), position, axis
            )
            sizes.append(size)
            symbol = sympy.Symbol(size.name, integer=True, nonnegative=True)
            unknown = [item for item in free_symbols(expected) if item.name not in known]
            where = _where(graph, position, axis)
            if len(unknown) == 1 and not isinstance(expected, int) and expected.diff(unknown[0]).is_Integer:
                name = unknown[0].name
                slope = int(expected.diff(unknown[0]))
                offset = plain(expected - slope * unknown[0])
                solved.append((name, sympy.floor((symbol - offset) / slope)))
                known.add(name)
                checks.append(
                    EntryCheck(
                        sympy.Eq(sympy.Mod(symbol - offset, slope), 0),
                        f"{where} is {{{size.name}}}, expected {expected}",
                    )
                )
                checks += _range_checks(where, name, graph.symbols.get(name, SymbolRange(0, None)))
            else:
                checks.append(
                    EntryCheck(sympy.Eq(symbol, expected), f"{where} is {{{size.name}}}, expected {expected}")
                )
    for guard in graph.guards:
        if guard.condition != sympy.true:
            source = f" (from {guard.source})" if guard.source else ""
            checks.append(
                EntryCheck(
                    guard.condition, f"the inputs' sizes violate a guard of the model: {guard.condition}{source}"
                )
            )
    return sizes, solved, checks


def _range_checks(where: str, name: str, limits: SymbolRange) -> list[EntryCheck]:
    symbol = sympy.Symbol(name, integer=True, nonnegative=True)
    between = f"{limits.lower} <= {name}" + ("" if limits.upper is None else f" <= {limits.upper}")
    checks = []
    if limits.lower > 0:
        checks.append(EntryCheck(sympy.Ge(symbol, limits.lower), f"{where} is {{{name}}}, expected {between}"))
    if limits.upper is not None:
        checks.append(EntryCheck(sympy.Le(symbol, limits.upper), f"{where} is {{{name}}}, expected {between}"))
    return checks


def _where(graph: Graph, position: int, axis: int) -> str:
    name = _name(graph, position)
    return f"input {name}" if axis < 0 else f"input {name}: dimension {axis}"


def _name(graph: Graph, position: int) -> str:
    return str(graph.nodes[graph.inputs[position]].args[0])
