"""Checks of the options that the quantising passes share: widths, and paths that have to name something."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from taut.errors import ArgumentError
from taut.graph import Graph
from taut.transform.quantisation._layers import is_below
from taut.transform.quantisation._units import Unit, find_units


def check_width(argument: str, value: object) -> int:
    """The least width of a layer.

    Raises:
        ArgumentError: it is below 1.
    """
    if not isinstance(value, int) or value < 1:
        raise ArgumentError(argument, value, expected="a whole number from 1")
    return value


def check_skip(argument: str, value: object, graph: Graph) -> list[str]:
    """The module paths whose layers stay.

    Raises:
        ArgumentError: one is no string, or names nothing in the graph; with the closest path that does.
    """
    roots = check_strings(argument, value)
    if roots:
        units = find_units(graph)
        others = {node.module_path for node in graph.nodes if node.module_path}
        for root in roots:
            if not is_below(others, [root]):
                check_path(argument, root, units)
    return roots


def check_path(argument: str, root: str, units: Sequence[Unit]) -> None:
    """Refuse the path of no layer, with the closest one.

    Raises:
        ArgumentError: no layer has that path or lies below it.
    """
    if any(unit.path == root or unit.is_below([root]) for unit in units):
        return
    known = list(dict.fromkeys(path for unit in units for path in unit.paths if path))
    close = difflib.get_close_matches(root, known, n=1, cutoff=0.4)
    expected = f"the path of a layer; did you mean {close[0]}?" if close else "the path of a layer"
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    raise ArgumentError(argument, root, expected=expected, fix=f"layers here: {shown or 'none'}")


def check_strings(argument: str, value: object) -> list[str]:
    """The items of an option that holds several strings.

    Raises:
        ArgumentError: one is no string.
    """
    assert isinstance(value, Iterable)
    items = list(value)
    for item in items:
        if not isinstance(item, str):
            raise ArgumentError(argument, item, expected="a string")
    return items
