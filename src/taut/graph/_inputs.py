"""Binding a call's arguments to the graph's inputs, and checking them against types, ranges and guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from taut.errors import ArgumentError, GraphError, GuardError
from taut.graph._symbols import Number, compiled
from taut.graph._types import Graph, ScalarType, SymbolRange, TensorType

_NUMBERS = {"int": int, "float": float, "bool": bool}


def bind_sizes(graph: Graph, *inputs: Any) -> dict[str, int]:
    """The size of each backed symbol when the graph is called with these inputs.

    Args:
        graph: the graph.
        inputs: positional arguments as for the model.

    Returns:
        The sizes by symbol name.

    Raises:
        GuardError: if the inputs do not fit the graph.
    """
    checker = InputChecker(graph)
    return checker.check(checker.bind(inputs, {}))


class InputChecker:
    """Binds and checks the arguments of calls; planned once for a graph.

    Args:
        graph: the graph; its input names tell the structure of the call, e.g. "features.0".
    """

    def __init__(self, graph: Graph) -> None:
        self.names = [str(graph.nodes[node].args[0]) for node in graph.inputs]
        self.types = [graph.nodes[node].outputs[0] for node in graph.inputs]
        self.groups = list(dict.fromkeys(name.split(".", 1)[0] for name in self.names))
        self.ranges = dict(graph.symbols)
        self.expected = [
            (index, name, kind.dtype, len(kind.shape))
            for index, (name, kind) in enumerate(zip(self.names, self.types, strict=True))
            if isinstance(kind, TensorType)
        ]
        self.numbers = [
            (index, name, kind)
            for index, (name, kind) in enumerate(zip(self.names, self.types, strict=True))
            if isinstance(kind, ScalarType)
        ]
        self.fixed: list[tuple[int, int, int]] = []
        self.bound: list[tuple[int, int, str, SymbolRange]] = []
        self.derived: list[tuple[int, int, sympy.Expr, Callable[[Mapping[str, int]], Number]]] = []
        self.solved: list[tuple[int, int, str, SymbolRange, sympy.Expr, sympy.Expr]] = []
        self._plan_dimensions()
        relations = [guard for guard in graph.guards if guard.condition != sympy.true]
        self.guards = [(guard, compiled(guard.condition)) for guard in relations]
        for expression in (*(item[2] for item in self.derived), *(guard.condition for guard in relations)):
            for used in expression.free_symbols:
                if str(used) not in self.known:
                    raise GraphError(f"{expression} uses the symbol {used}, which no input's size tells")

    def _plan_dimensions(self) -> None:
        dims = [
            (index, dim, size)
            for index, kind in enumerate(self.types)
            if isinstance(kind, TensorType)
            for dim, size in enumerate(kind.shape)
        ]
        known: set[str] = set()
        later: list[tuple[int, int, Any]] = []
        for index, dim, size in dims:
            if isinstance(size, int):
                self.fixed.append((index, dim, size))
            elif isinstance(size, sympy.Symbol) and size.name not in known:
                known.add(size.name)
                self.bound.append((index, dim, size.name, self.ranges.get(size.name, SymbolRange(0, None))))
            else:
                later.append((index, dim, size))
        known |= {str(kind.expression) for _, _, kind in self.numbers if isinstance(kind.expression, sympy.Symbol)}
        for index, dim, size in later:
            unknown = [item for item in size.free_symbols if item.name not in known]
            if len(unknown) == 1 and len(size.free_symbols) == 1 and size.diff(unknown[0]).is_number:
                name = unknown[0].name
                known.add(name)
                slope = size.diff(unknown[0])
                limits = self.ranges.get(name, SymbolRange(0, None))
                self.solved.append((index, dim, name, limits, slope, size - slope * unknown[0]))
            else:
                self.derived.append((index, dim, size, compiled(size)))
        self.known = known

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The flat inputs, in the graph's order.

        Raises:
            GuardError: if arguments are missing, unknown or too many.
        """
        if not kwargs and len(args) == len(self.names) and all(type(item) is torch.Tensor for item in args):
            return list(args)
        found: dict[str, Any] = {}
        given = [item for item in args if item is not None]
        if len(given) > len(self.groups):
            raise GuardError(
                f"the graph takes {len(self.groups)} arguments and got {len(given)}", expected=self._signature()
            )
        for group, value in [*zip(self.groups, given, strict=False), *kwargs.items()]:
            if value is None:
                continue
            for path, leaf in pytree.tree_flatten_with_path(value)[0]:
                keys = [str(getattr(key, "idx", getattr(key, "key", getattr(key, "name", key)))) for key in path]
                name = ".".join([group, *keys])
                if name in found:
                    raise GuardError(f"input {group} was given twice", expected=self._signature())
                if leaf is not None:
                    found[name] = leaf
        missing = [name for name in self.names if name not in found]
        unknown = [name for name in found if name not in set(self.names)]
        if missing or unknown:
            parts = [f"input {missing[0]} is missing"] if missing else []
            parts += [f"input {unknown[0]} is unknown"] if unknown else []
            raise GuardError(" and ".join(parts), expected=self._signature())
        return [found[name] for name in self.names]

    def check(self, values: list[Any]) -> dict[str, int]:
        """The sizes of the symbols.

        Raises:
            GuardError: naming the input, the dimension and the constraint that it violates.
        """
        try:
            return self._check(values)
        except (ArithmeticError, ValueError) as error:
            raise GuardError(f"a size of the graph is not defined for these inputs: {error}") from error

    def _check(self, values: list[Any]) -> dict[str, int]:
        for index, name, dtype, rank in self.expected:
            value = values[index]
            if not isinstance(value, torch.Tensor):
                raise GuardError(f"input {name} is a {type(value).__name__}", expected="a tensor")
            if value.dtype is not dtype:
                raise GuardError(
                    f"input {name} has dtype {value.dtype}", expected=str(dtype), fix=f"{name}.to({dtype})"
                )
            if value.dim() != rank:
                raise GuardError(f"input {name} has {value.dim()} dimensions", expected=self._shape(index))
        for index, dim, size in self.fixed:
            if values[index].shape[dim] != size:
                raise self._dimension(index, dim, values[index].shape[dim], str(size))
        sizes: dict[str, int] = {}
        for index, name, kind in self.numbers:
            self._number(name, kind, values[index], sizes)
        for index, dim, name, limits in self.bound:
            size = values[index].shape[dim]
            if size < limits.lower or (limits.upper is not None and size > limits.upper):
                raise self._dimension(index, dim, size, between(name, limits))
            if sizes.setdefault(name, size) != size:
                raise self._dimension(index, dim, size, f"{name} = {sizes[name]}")
        for index, dim, name, limits, slope, offset in self.solved:
            size = values[index].shape[dim]
            solution = (size - offset) / slope
            fits = solution.is_integer and solution >= limits.lower
            if not fits or (limits.upper is not None and solution > limits.upper):
                expression = slope * sympy.Symbol(name) + offset
                raise self._dimension(index, dim, size, f"{expression} with {between(name, limits)}")
            sizes[name] = int(solution)
        for index, dim, expression, value in self.derived:
            expected, size = value(sizes), values[index].shape[dim]
            if size != expected:
                raise self._dimension(index, dim, size, f"{expression} = {expected}")
        for guard, holds in self.guards:
            if not holds(sizes):
                raise GuardError(
                    f"the inputs' sizes {sizes} violate a guard of the model",
                    expected=str(guard.condition) + (f" (from {guard.source})" if guard.source else ""),
                )
        return sizes

    def _number(self, name: str, kind: ScalarType, value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not _NUMBERS[kind.kind]:
            raise GuardError(f"input {name} is {value!r}", expected=f"a Python {kind.kind}")
        if isinstance(kind.expression, sympy.Symbol):
            limits = self.ranges.get(kind.expression.name, SymbolRange(0, None))
            if value < limits.lower or (limits.upper is not None and value > limits.upper):
                raise GuardError(f"input {name} is {value}", expected=between(kind.expression.name, limits))
            sizes[kind.expression.name] = value
        elif kind.expression is not None and compiled(kind.expression)({}) != value:
            raise GuardError(
                f"input {name} is {value}, but the graph was captured for {kind.expression}",
                fix="capture the model again with the new value",
            )

    def _dimension(self, index: int, dim: int, size: int, expected: str) -> GuardError:
        name = self.names[index]
        return GuardError(
            f"input {name}: dimension {dim} is {size}", expected=f"{expected} (shape {self._shape(index)})"
        )

    def _shape(self, index: int) -> str:
        kind = self.types[index]
        return f"({', '.join(map(str, kind.shape))})" if isinstance(kind, TensorType) else ""

    def _signature(self) -> str:
        return f"({', '.join(self.names)})"


def between(name: str, limits: SymbolRange) -> str:
    """The range of a symbol in words."""
    return f"{limits.lower} <= {name}" + ("" if limits.upper is None else f" <= {limits.upper}")


def check_argument(graph: object) -> None:
    """Refuse what is no graph.

    Raises:
        ArgumentError: if `graph` is no `Graph`.
    """
    if not isinstance(graph, Graph):
        raise ArgumentError(
            "graph", type(graph).__name__, expected="a taut.graph.Graph", fix="taut.graph.capture(model)"
        )
