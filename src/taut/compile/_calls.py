"""Nodes that run elsewhere: on ATen, or as functions of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy

from taut.compile._block import CallStep, FallbackStep
from taut.compile._dims import plain, product
from taut.compile._layout_ops import number
from taut.compile._views import Buffer, View, contiguous
from taut.errors import GraphError
from taut.graph import Argument, Builder, Dim, Graph, Node, Ref, ScalarType, SymbolRange, TensorType, ValueType, symbol

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


def lower_fallback(lowering: Lowering, node: Node) -> None:
    """The node alone as a graph on ATen."""
    builder = Builder()
    inputs: list[View | Dim] = []
    mapped: dict[Ref, Ref] = {}
    symbols: dict[str, SymbolRange] = {}

    def translate(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(translate(item) for item in argument)
        if not isinstance(argument, Ref):
            return argument
        if argument not in mapped:
            kind = lowering.graph.value_type(argument)
            mapped[argument] = builder.input(f"x{len(inputs)}", _anonymous(kind, symbols))
            inputs.append(
                lowering.tensor(argument) if isinstance(kind, TensorType) else number(lowering.graph, argument)
            )
        return mapped[argument]

    ref = builder.add(
        node.op,
        *(translate(argument) for argument in node.args),
        outputs=node.outputs,
        kwargs={name: translate(value) for name, value in node.kwargs},
        regions=node.regions,
        module_path=node.module_path,
        source=node.source,
    )
    ranges = dict.fromkeys(_free_symbols(node), SymbolRange(0, None)) | dict(lowering.graph.symbols)
    symbols |= {name: limits for name, limits in ranges.items() if name not in symbols}
    graph = builder.finish(tuple(Ref(ref.node, index) for index in range(len(node.outputs))), symbols=symbols)
    outputs, binds = _results(lowering, node)
    lowering.emit(FallbackStep(graph, tuple(inputs), outputs, binds, lowering.label))


def _anonymous(kind: ValueType, symbols: dict[str, SymbolRange]) -> ValueType:
    """The type with a symbol of its own for each symbolic size: the whole graph has checked how they are related."""
    if not isinstance(kind, TensorType):
        return ScalarType(kind.kind)
    shape: list[Dim] = []
    for size in kind.shape:
        if isinstance(size, sympy.Basic):
            name = f"d{len(symbols)}"
            symbols[name] = SymbolRange(0, None)
            size = symbol(name)
        shape.append(size)
    return TensorType(tuple(shape), kind.dtype, kind.layout)


def lower_control_flow(lowering: Lowering, node: Node) -> None:
    """`cond` and `while_loop`: their regions become functions."""
    operands: list[Argument] = []
    if node.op == "cond":
        predicate, arguments = node.args[0], node.args[1]
        assert isinstance(arguments, tuple)
        operands = list(arguments)
        condition = _predicate(lowering, predicate)
    else:
        condition = None
        operands = [item for group in node.args if isinstance(group, tuple) for item in group]
    more = _unbound_symbols(lowering, node)
    functions = tuple(
        lowering.register(region, f"{lowering.name}.{node.op}{node.id}.{position}", more, lowering.pin)
        for position, region in enumerate(node.regions)
    )
    inputs = (*(_argument(lowering, item) for item in operands), *map(symbol, more))
    outputs, binds = _results(lowering, node)
    lowering.emit(CallStep(node.op, functions, condition, inputs, outputs, binds, lowering.label))


def _unbound_symbols(lowering: Lowering, node: Node) -> tuple[str, ...]:
    """Symbols in the regions' sizes that no size of their arguments gives alone, as in (2*s0,)."""
    used = {name for region in node.regions for name in _symbols(region)}
    known = lowering.known | {name for name, limits in lowering.graph.symbols.items() if limits.backed}
    bare = [
        {
            str(size)
            for number in region.inputs
            for kind in region.nodes[number].outputs
            for size in (kind.shape if isinstance(kind, TensorType) else (kind.expression,))
        }
        for region in node.regions
    ]
    return tuple(sorted(name for name in used & known if not all(name in names for names in bare)))


def _symbols(region: Graph) -> set[str]:
    """The symbols in the sizes of a region's values."""
    return {name for node in region.nodes for name in _free_symbols(node)}


def _free_symbols(node: Node) -> set[str]:
    """The symbols in the sizes of a node's values, those of its regions included."""
    found = {name for inner in node.regions for name in _symbols(inner)}
    for kind in node.outputs:
        sizes = kind.shape if isinstance(kind, TensorType) else (kind.expression,)
        found |= {str(free) for size in sizes if isinstance(size, sympy.Basic) for free in size.free_symbols}
    return found


def _argument(lowering: Lowering, argument: Argument) -> View | Dim:
    if isinstance(argument, bool) or argument is None or isinstance(argument, (float, str)):
        raise GraphError(
            f"a branch or loop at {lowering.label} is given {argument!r}", expected="tensors and integers as operands"
        )
    if isinstance(argument, Ref) and isinstance(lowering.graph.value_type(argument), TensorType):
        return lowering.contiguous(lowering.tensor(argument))
    return number(lowering.graph, argument)


def _predicate(lowering: Lowering, argument: Argument) -> sympy.Basic | View:
    kind = lowering.graph.value_type(argument) if isinstance(argument, Ref) else None
    if isinstance(kind, TensorType):
        return lowering.tensor(argument)
    if isinstance(kind, ScalarType) and kind.expression is not None:
        return kind.expression
    return sympy.true if argument else sympy.false


def _results(lowering: Lowering, node: Node) -> tuple[tuple[View, ...], tuple[tuple[str, int, int], ...]]:
    """Views for the outputs, and the symbols that only they tell."""
    outputs: list[View] = []
    binds: list[tuple[str, int, int]] = []
    for index, kind in enumerate(node.outputs):
        if not isinstance(kind, TensorType):
            raise GraphError(f"{node.op} at {lowering.label} returns a number", expected="tensors")
        sizes = tuple(plain(size) for size in kind.shape)
        for axis, size in enumerate(sizes):
            if isinstance(size, sympy.Symbol) and size.name not in lowering.known:
                lowering.known.add(size.name)
                binds.append((size.name, index, axis))
        buffer = Buffer("storage", kind.dtype, product(sizes), name=lowering.label)
        outputs.append(contiguous(buffer, sizes))
        lowering.values[Ref(node.id, index)] = outputs[-1]
    return tuple(outputs), tuple(binds)
