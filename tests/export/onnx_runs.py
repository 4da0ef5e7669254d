"""Models written to a file and run by onnxruntime, beside the graph itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from taut.export import export_onnx
from taut.graph import Argument, Builder, Graph, Interpreter, Ref, TensorType


def session(path: Path, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """A session of one thread, which logs errors only."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a nested structure, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, Mapping) else tree
    return [leaf for item in items for leaf in leaves(item)]


def run(model: onnxruntime.InferenceSession, *inputs: Tensor) -> list[Tensor]:
    """The outputs for inputs in the model's order."""
    feed = {given.name: value.numpy() for given, value in zip(model.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(made) for made in model.run(None, feed)]


def both(graph: Graph, folder: Path, *inputs: Tensor, optimised: bool = True) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of onnxruntime on the exported graph, and those of the graph itself."""
    (path, *_) = export_onnx(graph, folder / "model.onnx", force=True)
    return run(session(path, optimised=optimised), *inputs), leaves(Interpreter(graph)(*inputs))


def operations(path: Path) -> list[str]:
    """The names of the operations in a file."""
    return [node.op_type for node in onnx.load(path).graph.node]


def one_operator(
    op: str, inputs: Sequence[Tensor], *arguments: Argument, constants: Sequence[Tensor] = (), **keywords: Argument
) -> Graph:
    """A graph of one operator; `Ref(i)` among the arguments is the i-th of inputs and constants.

    Its result types come from running it.
    """
    builder = Builder()
    refs = [builder.input(f"x{index}", TensorType(tuple(x.shape), x.dtype)) for index, x in enumerate(inputs)]
    refs += [builder.constant(value, f"weight.{index}") for index, value in enumerate(constants)]
    values = [*inputs, *constants]

    def given(argument: Argument, known: Sequence[Any]) -> Any:
        if isinstance(argument, Ref):
            return known[argument.node]
        return tuple(given(item, known) for item in argument) if isinstance(argument, tuple) else argument

    namespace, name, overload = op.split(".")
    function = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    made = function(
        *(given(item, values) for item in arguments), **{key: given(item, values) for key, item in keywords.items()}
    )
    results = made if isinstance(made, (tuple, list)) else (made,)
    types = tuple(TensorType(tuple(item.shape), item.dtype) for item in results)
    ref = builder.add(
        op,
        *(given(item, refs) for item in arguments),
        outputs=types,
        kwargs={key: given(item, refs) for key, item in keywords.items()},
        module_path="block.layer",
        source="model.py:7",
    )
    outputs = tuple(Ref(ref.node, index) for index in range(len(types)))
    return builder.finish(outputs if len(outputs) > 1 else ref)
