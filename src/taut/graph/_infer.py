"""Types again after a rewrite: dtypes and layouts by running the operators on tensors without data."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from taut.errors import GraphError
from taut.graph._lower import layout_of
from taut.graph._policy import CONTROL_FLOW, SCALAR_FUNCTIONS, resolve
from taut.graph._symbols import compiled, evaluate, evaluate_number
from taut.graph._types import Argument, Graph, Node, Ref, ScalarType, TensorType, ValueType

_PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "scaled_dot_product_attention"})
_UNKNOWN = {"int": 1, "float": 1.0, "bool": True}


def infer_types(graph: Graph) -> Graph:
    """Re-derive every dtype and layout, e.g. after a pass cast some constants; symbolic shapes stay as they are.

    Args:
        graph: a graph whose inputs and constants have the right types.

    Returns:
        The graph with the types that its operators give. Their shapes, at one assignment of sizes, are checked
        against the symbolic ones.

    Raises:
        GraphError: naming the operation, if an operator refuses its inputs or gives another shape than recorded.
    """
    sizes = example_sizes(graph)
    with FakeTensorMode(), torch.no_grad():
        return _infer(graph, None, sizes)


def example_sizes(graph: Graph) -> dict[str, int]:
    """Small sizes, different where possible, that ranges and guards allow.

    Raises:
        GraphError: if none were found.
    """
    guards = [compiled(guard.condition) for guard in graph.guards]
    chance = random.Random(0)
    for attempt in range(2000):
        sizes = {}
        for index, (name, limits) in enumerate(graph.symbols.items()):
            offset = index + 1 if attempt == 0 else chance.randrange(4 + attempt)
            value = max(limits.lower, 2) + offset
            sizes[name] = value if limits.upper is None else max(limits.lower, min(value, limits.upper))
        if all(guard(sizes) for guard in guards):
            return sizes
    raise GraphError(
        "no sizes were found that the graph's guards allow", fix="simplify the guards or narrow the ranges"
    )


def _infer(graph: Graph, dtypes: Sequence[torch.dtype | None] | None, sizes: Mapping[str, int]) -> Graph:
    """Infer a graph or a region; `dtypes` are those of a region's inputs."""
    values: dict[Ref, Any] = {}
    nodes: list[Node] = []
    given = dict(zip(graph.inputs, dtypes, strict=True)) if dtypes is not None else {}
    for node in graph.nodes:
        outputs, regions = node.outputs, node.regions
        if node.op == "input":
            outputs = tuple(_cast(kind, given.get(node.id)) for kind in outputs)
        if node.op in ("input", "constant"):
            results = [_example(kind, sizes) for kind in outputs]
        elif node.op in CONTROL_FLOW:
            regions, outputs = _control_flow(node, values, sizes)
            results = [_example(kind, sizes) for kind in outputs]
        elif node.op in SCALAR_FUNCTIONS or node.op == "check":
            results = [_example(kind, sizes) for kind in outputs]
        else:
            results = _run(node, values, sizes)
            outputs = tuple(_checked(node, kind, result, sizes) for kind, result in zip(outputs, results, strict=True))
        values.update({Ref(node.id, index): result for index, result in enumerate(results)})
        nodes.append(dataclasses.replace(node, outputs=outputs, regions=regions))
    return dataclasses.replace(graph, nodes=tuple(nodes))


def _cast(kind: ValueType, dtype: torch.dtype | None) -> ValueType:
    return dataclasses.replace(kind, dtype=dtype) if isinstance(kind, TensorType) and dtype is not None else kind


def _example(kind: ValueType, sizes: Mapping[str, int]) -> Any:
    """A value of the type: a tensor without data, or a number."""
    if isinstance(kind, ScalarType):
        return _UNKNOWN[kind.kind] if kind.expression is None else evaluate_number(kind.expression, sizes)
    shape = [evaluate(size, sizes) for size in kind.shape]
    tensor = torch.empty(shape, dtype=kind.dtype)
    return tensor.contiguous(memory_format=torch.channels_last) if kind.layout == "channels_last" else tensor


def _run(node: Node, values: Mapping[Ref, Any], sizes: Mapping[str, int]) -> list[Any]:
    """The outputs of a torch operator."""
    args = [_resolve(item, values) for item in node.args]
    kwargs = {name: _resolve(value, values) for name, value in node.kwargs}
    _same_dtypes(node, args)
    try:
        result = resolve(node.op)(*args, **kwargs)
    except (DataDependentOutputException, DynamicOutputShapeException):
        return [_example(kind, sizes) for kind in node.outputs]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        where = f" ({node.source or node.module_path})" if node.source or node.module_path else ""
        raise GraphError(f"node %{node.id} {node.op}{where} refuses its inputs: {error}") from error
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(results) != len(node.outputs):
        raise GraphError(f"node %{node.id} {node.op} gives {len(results)} outputs", expected=str(len(node.outputs)))
    return results


def _same_dtypes(node: Node, args: Sequence[Any]) -> None:
    """Refuse a product of different dtypes, which kernels refuse too but operators without data let pass."""
    name = node.op.split(".")[1]
    if not name.startswith("conv") and name not in _PRODUCTS:
        return
    operands = args[:3] if name == "scaled_dot_product_attention" else args
    dtypes = {item.dtype for item in operands if isinstance(item, torch.Tensor)}
    if len(dtypes) > 1:
        where = f" ({node.source or node.module_path})" if node.source or node.module_path else ""
        raise GraphError(
            f"node %{node.id} {node.op}{where} refuses its inputs: {', '.join(sorted(map(str, dtypes)))}",
            expected="one dtype",
        )


def _resolve(argument: Argument, values: Mapping[Ref, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument]
    if isinstance(argument, tuple):
        return [_resolve(item, values) for item in argument]
    return argument


def _checked(node: Node, kind: ValueType, result: Any, sizes: Mapping[str, int]) -> ValueType:
    """The recorded type with the dtype and layout of the result."""
    if not isinstance(kind, TensorType) or not isinstance(result, torch.Tensor):
        return kind
    expected = tuple(evaluate(size, sizes) for size in kind.shape)
    if expected != tuple(result.shape):
        raise GraphError(
            f"node %{node.id} {node.op} gives the shape {tuple(result.shape)} at {dict(sizes)}",
            expected=f"{kind.shape} = {expected}",
        )
    return TensorType(kind.shape, result.dtype, layout_of(result))


def _control_flow(
    node: Node, values: Mapping[Ref, Any], sizes: Mapping[str, int]
) -> tuple[tuple[Graph, ...], tuple[ValueType, ...]]:
    """The regions for the operands' dtypes, and the output types that follow."""
    groups = [item for item in node.args if isinstance(item, tuple)]
    if node.op == "associative_scan":
        groups = [groups[0], *groups]
    operands = [_resolve(item, values) for group in groups for item in group]
    dtypes = [item.dtype if isinstance(item, torch.Tensor) else None for item in operands]
    regions = tuple(_infer(region, dtypes, sizes) for region in node.regions)
    made = regions[-1]
    outputs = []
    for kind, ref in zip(node.outputs, made.output_refs, strict=True):
        result = made.value_type(ref)
        outputs.append(_cast(kind, result.dtype) if isinstance(result, TensorType) else kind)
    if node.op == "while_loop":
        for index, kind in enumerate(outputs):
            if isinstance(kind, TensorType) and kind.dtype is not dtypes[index]:
                raise GraphError(f"node %{node.id} while_loop carries {dtypes[index]} in and {kind.dtype} out")
    return regions, tuple(outputs)
