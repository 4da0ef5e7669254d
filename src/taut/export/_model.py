"""From a graph to an ONNX model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taut.errors import TautError

# Each of these registers its converters.
from taut.export import (  # noqa: F401
    _activations,
    _elementwise,
    _encoded,
    _indexing,
    _layout,
    _normalisations,
    _products,
    _quantised,
    _recurrent,
    _reductions,
    _sizes,
    _windows,
)
from taut.export._registry import CONVERTERS, bind, unsupported
from taut.export._values import ELEMENT_TYPES, EncodedWeight, Value
from taut.export._writer import Writer
from taut.graph import Graph, Node, Ref

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 21
IR_VERSION = 10
_DECODE = "taut.decode.default"


def build_model(graph: Graph) -> ModelProto:
    """The model; constants that nothing uses are left out.

    Raises:
        ExportError: an operator, type or number format has no counterpart, named with its place in the model.
    """
    from onnx import helper

    w = Writer()
    values: dict[Ref, Value] = {}
    inputs = []
    for index in graph.inputs:
        node = graph.nodes[index]
        name = w.reserve(str(node.args[0]))
        values[Ref(index)] = Value(name, node.outputs[0])
        inputs.append(_describe(node, name, values[Ref(index)]))
    names = [w.reserve(path) for path in _paths(graph.outputs)]
    results = write_region(w, graph, values)
    outputs = []
    for name, value in zip(names, results, strict=True):
        w.operations.append(helper.make_node("Identity", [w.name(value)], [name], name))
        outputs.append(_describe(graph.nodes[-1], name, value))
    body = helper.make_graph(w.operations, "taut", inputs, outputs, list(w.tensors.values()))
    sets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in sorted(w.domains))]
    return helper.make_model(body, opset_imports=sets, ir_version=IR_VERSION, producer_name="taut")


def write_region(w: Writer, graph: Graph, values: dict[Ref, Value]) -> list[Value]:
    """Write the operations of a graph or region; `values` holds its inputs. Returns its outputs' leaves."""
    for node in graph.nodes:
        if node.op == "input" or node.op == "check":
            continue
        if node.op == "constant":
            values[Ref(node.id)] = Value("", node.type, graph.constants[str(node.args[0])])
            continue
        w.node = node
        args = tuple(_translate(argument, values) for argument in node.args)
        keywords = {name: _translate(argument, values) for name, argument in node.kwargs}
        if node.op == _DECODE and (encoded := _encoded_weight(args, keywords)) is not None:
            values[Ref(node.id)] = Value("", node.type, encoded=encoded)
            continue
        if node.regions:
            from taut.export._branches import write_control_flow

            made: Any = write_control_flow(w, node, args)
        elif node.op in CONVERTERS:
            made = _convert(w, node, args, keywords)
        else:
            unsupported(node, "taut cannot express this operator in ONNX", fix="keep it out of the exported model")
        for output, name in enumerate((made,) if isinstance(made, str) else made):
            values[Ref(node.id, output)] = Value(name, node.outputs[output])
    return [values[ref] for ref in graph.output_refs]


def _convert(w: Writer, node: Node, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    try:
        return CONVERTERS[node.op](w, *bind(node, args, keywords))
    except TautError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        unsupported(node, f"its arguments cannot be written in ONNX ({type(error).__name__}: {error})")


def _translate(argument: Any, values: dict[Ref, Value]) -> Any:
    if isinstance(argument, Ref):
        return values[argument]
    if isinstance(argument, tuple):
        return tuple(_translate(item, values) for item in argument)
    return argument


def _encoded_weight(args: Sequence[Any], keywords: dict[str, Any]) -> EncodedWeight | None:
    given = dict(zip(("buffers", "format", "shape"), args, strict=False)) | keywords
    tensors = [buffer.tensor for buffer in given["buffers"]]
    known = tuple(tensor for tensor in tensors if tensor is not None)
    return EncodedWeight(known, given["format"], tuple(given["shape"])) if len(known) == len(tensors) else None


def _describe(node: Node, name: str, value: Value) -> Any:
    from onnx import helper

    if value.dtype not in ELEMENT_TYPES:
        unsupported(node, f"ONNX has no element type for {value.dtype}")
    shape = [size if isinstance(size, int) else str(size).replace(" ", "") for size in value.shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[value.dtype], shape)


def _paths(tree: object, path: str = "") -> list[str]:
    """A name for each leaf of the outputs that is a value."""
    if isinstance(tree, Ref):
        return [path or "output"]
    if isinstance(tree, (tuple, list)):
        parts = [(str(index), item) for index, item in enumerate(tree)]
    elif isinstance(tree, dict) or hasattr(tree, "items"):
        parts = [(str(key), item) for key, item in tree.items()]  # pyright: ignore[reportAttributeAccessIssue]
    else:
        return []
    stem = f"{path}." if path else ("output_" if isinstance(tree, (tuple, list)) else "")
    return [leaf for key, item in parts for leaf in _paths(item, f"{stem}{key}")]
