"""Checks that a graph is well formed: for graphs that come from files, and after passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch

from taut.errors import GraphError
from taut.graph._policy import CONTROL_FLOW, SCALAR_FUNCTIONS, STRUCTURAL, is_torch_operator, resolve
from taut.graph._types import Argument, Graph, Node, Ref, ScalarType, SymbolRange, TensorType, content_hash

_ARITY = {"sym.neg": 1, "sym.not": 1, "sym.int": 1, "sym.float": 1, "sym.floor": 1, "sym.ceil": 1, "sym.trunc": 1}
_ARITY |= {"sym.ite": 3}
_REGIONS = {"cond": 2, "while_loop": 2, "scan": 1, "associative_scan": 1, "map": 1, "invoke_subgraph": 1}
_MAXIMAL_DEPTH = 16
# Their schemas do not tell that they write to the running statistics when this argument is true.
_UPDATES = {"aten.batch_norm.default": "training", "aten.instance_norm.default": "use_input_stats"}


def validate(graph: Graph, *, content: bool = False) -> None:
    """Check a graph: ids, references, output counts, constants, symbols, operators and their arguments.

    Args:
        graph: the graph.
        content: also hash each constant and compare; reads all of the weights.

    Raises:
        GraphError: naming the node and what is wrong with it.
    """
    _validate(graph, graph.symbols, content, depth=0)


def _validate(graph: Graph, outer: Mapping[str, SymbolRange], content: bool, depth: int) -> None:
    if depth > _MAXIMAL_DEPTH:
        raise GraphError(f"regions are nested more than {_MAXIMAL_DEPTH} deep")
    symbols = {**outer, **graph.symbols}
    for name, limits in graph.symbols.items():
        if limits.lower < 0 or (limits.upper is not None and limits.upper < limits.lower):
            raise GraphError(f"symbol {name} has the empty range [{limits.lower}, {limits.upper}]")
    for position, node in enumerate(graph.nodes):
        try:
            _node(graph, node, position, symbols, content)
            for region in node.regions:
                _validate(region, symbols, content, depth + 1)
        except GraphError as error:
            if error.message.startswith("node %"):
                raise
            where = f" ({node.source or node.module_path})" if node.source or node.module_path else ""
            message = f"node %{position} {node.op[:80]}{where}: {error.message}"
            raise GraphError(message, expected=error.expected, fix=error.fix) from None
    placed = [node.id for node in graph.nodes if node.op == "input"]
    if sorted(graph.inputs) != placed:
        raise GraphError(f"the graph lists the inputs {list(graph.inputs)}", expected=f"each of {placed} once")
    names = [graph.nodes[node].args[0] for node in graph.inputs]
    if len(set(names)) != len(names):
        raise GraphError(f"two inputs have the same name: {names}")
    for ref in graph.output_refs:
        _reference(graph, ref, len(graph.nodes))
    for guard in graph.guards:
        _declared(guard.condition, symbols)


def _node(graph: Graph, node: Node, position: int, symbols: Mapping[str, SymbolRange], content: bool) -> None:
    if node.id != position:
        raise GraphError(f"has the id {node.id}", expected=str(position))
    for ref in node.inputs:
        _reference(graph, ref, position)
    for kind in node.outputs:
        _value_type(kind, symbols)
    if node.regions and node.op not in CONTROL_FLOW:
        raise GraphError("has regions", expected=f"only {', '.join(sorted(CONTROL_FLOW))} have")
    if node.op in STRUCTURAL:
        _structural(graph, node, content)
    elif node.op in SCALAR_FUNCTIONS:
        arity = _ARITY.get(node.op, 2)
        if len(node.args) != arity or node.kwargs:
            raise GraphError(f"has {len(node.args)} arguments", expected=str(arity))
        if len(node.outputs) != 1 or not isinstance(node.outputs[0], ScalarType):
            raise GraphError("has no single scalar output")
        for argument in node.args:
            if not _is_number(graph, argument, (bool, int, float)):
                raise GraphError(f"takes {argument!r}", expected="a number or a scalar value")
    elif node.op in CONTROL_FLOW:
        _control_flow(graph, node)
    elif is_torch_operator(node.op):
        _operator(graph, node)
    else:
        raise GraphError("is no known operator", expected="aten.<name>.<overload>")


def _structural(graph: Graph, node: Node, content: bool) -> None:
    if node.op == "check":
        if [isinstance(item, kind) for item, kind in zip(node.args, (Ref, str), strict=False)] != [True, True]:
            raise GraphError("a check takes a value and a message")
        if node.outputs:
            raise GraphError("a check has no outputs")
        return
    texts = [item for item in node.args if isinstance(item, str)]
    kind = node.outputs[0] if len(node.outputs) == 1 else None
    if len(texts) != len(node.args) or kind is None:
        raise GraphError("is malformed", expected="text arguments and one output")
    if node.op == "input":
        if len(texts) != 1:
            raise GraphError("is malformed", expected="an input's only argument is its name")
        return
    if len(texts) != 2 or not isinstance(kind, TensorType):
        raise GraphError("is malformed", expected="a constant has a content hash, a name and a tensor output")
    key, name = texts
    tensor = graph.constants.get(key)
    if tensor is None:
        raise GraphError(f"the constant {name} is missing", expected=f"a tensor under {key}")
    if tuple(tensor.shape) != kind.shape or tensor.dtype is not kind.dtype:
        raise GraphError(
            f"the constant {name} is {tensor.dtype} {tuple(tensor.shape)}",
            expected=f"{kind.dtype} {kind.shape}",
        )
    if content and content_hash(tensor) != key:
        raise GraphError(
            f"the content of the constant {name} does not match its hash",
            fix="if the model was trained since, capture it again",
        )


def _control_flow(graph: Graph, node: Node) -> None:
    if len(node.regions) != _REGIONS[node.op]:
        raise GraphError(f"has {len(node.regions)} regions", expected=str(_REGIONS[node.op]))
    if node.kwargs:
        raise GraphError("takes no keyword arguments")
    groups = [item for item in node.args if isinstance(item, tuple)]
    others = [item for item in node.args if not isinstance(item, tuple)]
    if not 1 <= len(groups) <= 3 or len(others) != (node.op == "cond"):
        raise GraphError("is malformed", expected="tuples of values, and before them the predicate of a cond")
    if others and not isinstance(others[0], (Ref, bool)):
        raise GraphError(f"has the predicate {others[0]!r}", expected="a value")
    operands = sum(map(len, groups)) + (len(groups[0]) if node.op == "associative_scan" else 0)
    for region in node.regions:
        if len(region.inputs) != operands:
            raise GraphError(f"a region takes {len(region.inputs)} inputs", expected=str(operands))
    results = [len(region.output_refs) for region in node.regions]
    expected = [1, len(node.outputs)] if node.op == "while_loop" else [len(node.outputs)] * len(results)
    if results != expected:
        raise GraphError(f"regions give {results} values", expected=str(expected))
    if node.op == "while_loop" and len(groups[0]) != len(node.outputs):
        raise GraphError(f"carries {len(groups[0])} values and gives {len(node.outputs)}")


def _operator(graph: Graph, node: Node) -> None:
    schema = resolve(node.op)._schema
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    if len(node.args) > len(positional):
        raise GraphError(f"has {len(node.args)} positional arguments", expected=f"at most {len(positional)}")
    given: dict[str, Argument] = {a.name: value for a, value in zip(positional, node.args, strict=False)}
    for name, value in node.kwargs:
        if name in given or all(argument.name != name for argument in schema.arguments):
            raise GraphError(f"argument {name} is unknown or given twice", expected=str(schema))
        given[name] = value
    for argument in schema.arguments:
        if argument.name not in given:
            if not argument.has_default_value():
                raise GraphError(f"argument {argument.name} is missing", expected=str(schema))
        elif not _fits(graph, given[argument.name], argument.real_type):
            shown = repr(given[argument.name])[:100]
            raise GraphError(f"argument {argument.name} is {shown}", expected=str(argument.real_type))
    if given.get(_UPDATES.get(node.op, ""), False) is not False and given.get("running_mean") is not None:
        raise GraphError("writes to its running statistics", expected="a norm in evaluation mode")
    returns = schema.returns
    if len(returns) == 1 and returns[0].type.kind() == "ListType":
        fine = all(isinstance(kind, TensorType) for kind in node.outputs)
    else:
        fine = len(returns) == len(node.outputs) and all(
            isinstance(kind, TensorType) == (item.type.kind() == "TensorType")
            for item, kind in zip(returns, node.outputs, strict=True)
        )
    if not fine:
        raise GraphError(f"has outputs {node.outputs!r}"[:200], expected=str(schema))


def _fits(graph: Graph, value: Argument, kind: Any) -> bool:
    """Whether an argument fits a type of torch's schema language."""
    name = kind.kind()
    if name == "OptionalType":
        return value is None or _fits(graph, value, kind.getElementType())
    if name == "ListType":
        element = kind.getElementType()
        if isinstance(value, tuple):
            return all(_fits(graph, item, element) for item in value)
        # torch expands a single number for int[2] and the like
        return element.kind() in ("IntType", "SymIntType", "FloatType") and _fits(graph, value, element)
    if name == "TensorType":
        # torch takes a number where it takes a tensor: aten.add.Tensor(x, 1)
        tensor = isinstance(value, Ref) and isinstance(graph.value_type(value), TensorType)
        return tensor or _is_number(graph, value, (bool, int, float))
    if name in _NUMBERS:
        return _is_number(graph, value, _NUMBERS[name])
    return name in _LITERALS and isinstance(value, _LITERALS[name])


_NUMBERS: dict[str, tuple[type, ...]] = {
    "IntType": (int,),
    "SymIntType": (int,),
    "FloatType": (int, float),
    "BoolType": (bool,),
    "SymBoolType": (bool,),
    "NumberType": (bool, int, float),
}
_LITERALS: dict[str, type] = {
    "StringType": str,
    "ScalarTypeType": torch.dtype,
    "DeviceObjType": torch.device,
    "LayoutType": torch.layout,
    "MemoryFormatType": torch.memory_format,
}


def _is_number(graph: Graph, value: Argument, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, Ref):
        return isinstance(graph.value_type(value), ScalarType)
    return isinstance(value, kinds)


def _reference(graph: Graph, ref: Ref, before: int) -> None:
    if not (isinstance(ref.node, int) and 0 <= ref.node < before):
        raise GraphError(f"uses node %{ref.node}, which does not come before")
    if not (isinstance(ref.output, int) and 0 <= ref.output < len(graph.nodes[ref.node].outputs)):
        raise GraphError(f"uses output {ref.output} of node %{ref.node}, which does not exist")


def _value_type(kind: object, symbols: Mapping[str, SymbolRange]) -> None:
    if isinstance(kind, ScalarType):
        if kind.expression is not None:
            _declared(kind.expression, symbols)
    elif isinstance(kind, TensorType):
        for size in kind.shape:
            if isinstance(size, bool) or not isinstance(size, (int, sympy.Expr)):
                raise GraphError(f"has a dimension of {size!r}", expected="an integer or an expression over symbols")
            if isinstance(size, int):
                if size < 0:
                    raise GraphError(f"has a dimension of {size}")
            else:
                _declared(size, symbols)
        if kind.layout == "channels_last" and len(kind.shape) != 4:
            raise GraphError(f"has {len(kind.shape)} dimensions in channels_last", expected="4")
    else:
        raise GraphError(f"has an output of type {type(kind).__name__}")


def _declared(expression: sympy.Basic, symbols: Mapping[str, SymbolRange]) -> None:
    for used in expression.free_symbols:
        if str(used) not in symbols:
            raise GraphError(f"uses the symbol {used}, which has no range", expected=", ".join(symbols) or "no symbol")
