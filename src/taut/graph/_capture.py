"""The front door: from a module or an exported program to a graph."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from taut.errors import ArgumentError, ExportError, TautError
from taut.graph._composite import is_settled
from taut.graph._explain import explain_failure, specialised_dimensions
from taut.graph._guards import guards_of, ranges_of, without_zero_and_one
from taut.graph._lower import Lowering
from taut.graph._recurrent import KeepRecurrent
from taut.graph._symbols import Translation
from taut.graph._table import decomposition_table
from taut.graph._types import Graph, Guard, Ref, Tree
from taut.graph._validate import validate


def capture(
    model: torch.nn.Module | ExportedProgram,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Graph:
    """Capture a model's evaluation as a graph.

    The graph's constants share memory with the model's parameters: do not train the model while the graph is used.

    Args:
        model: a module, which is traced in evaluation mode and left as it was, or a program that torch.export made.
        args: example positional arguments; they may be nested lists, tuples and dictionaries of tensors and numbers.
            Numbers become part of the graph. Not used for an exported program.
        kwargs: example keyword arguments.
        dynamic_shapes: which dimensions may vary, in any form that torch.export takes. Tracing covers sizes from 2
            on: a `Dim` that starts lower is cut there, with a note in the graph's guards.

    Returns:
        The graph: functional, without dropout and other no-ops, with attention, linear, convolution, normalisation and
        recurrent layers whole.

    Raises:
        ExportError: if torch.export refuses the model, or the model writes to its inputs or buffers.
        ArgumentError: if an argument has a kind that a graph cannot take.
    """
    if isinstance(model, ExportedProgram):
        program = model
    else:
        _check_arguments(model, args, kwargs)
        program = _export(model, args, kwargs, dynamic_shapes)
    specialised = specialised_dimensions(program, dynamic_shapes)
    graph = without_zero_and_one(_lower(program if is_settled(program) else _decomposed(program)))
    notes = tuple(Guard(sympy.true, note) for note in specialised)
    graph = dataclasses.replace(graph, guards=(*guards_of(program, graph), *graph.guards, *notes))
    validate(graph)
    return graph


def _check_arguments(model: object, args: object, kwargs: object) -> None:
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError("model", type(model).__name__, expected="a torch.nn.Module or an ExportedProgram")
    if not isinstance(args, tuple):
        raise ArgumentError("args", type(args).__name__, expected="a tuple of example inputs", fix="write (x,)")
    for path, leaf in pytree.tree_flatten_with_path((args, kwargs or {}))[0]:
        if leaf is not None and not isinstance(leaf, (torch.Tensor, bool, int, float)):
            where = pytree.keystr(path[1:])
            raise ArgumentError(
                f"args{where}" if path[0] == pytree.SequenceKey(0) else f"kwargs{where}",
                leaf,
                expected="tensors, numbers, None, and tuples, lists and dictionaries of them",
                fix="bind other options when the model is built, e.g. with a small wrapper module",
            )


def _export(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: object
) -> ExportedProgram:
    modes = [(module, module.training) for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for module, _ in modes:
            module.training = False
        torch.backends.mha.set_fastpath_enabled(False)
        args, kwargs = _apart((args, kwargs))
        with _quiet(), KeepRecurrent(), torch.enable_grad():
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes)  # pyright: ignore
    except TautError:
        raise
    except Exception as error:
        raise explain_failure(error) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in modes:
            module.training = training


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    try:
        with _quiet():
            return program.run_decompositions(decomposition_table())
    except TautError:
        raise
    except Exception as error:
        raise explain_failure(error) from error


def _apart(inputs: Any) -> Any:
    """The inputs with each repeated tensor copied: torch.export takes one object given twice for one argument."""
    seen: set[int] = set()

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or id(leaf) not in seen:
            seen.add(id(leaf))
            return leaf
        return leaf.clone()

    return pytree.tree_map(copy, inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch.export's own warnings and log lines; what matters is raised."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.export", "torch._dynamo", "torch.fx", "torch._export", "torch._subclasses")
    ]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    sys.stderr.write(printed.getvalue())  # what the model itself printed; a failed export's dump does not get here


def _lower(program: ExportedProgram) -> Graph:
    _reject_mutation(program)
    translation = Translation()
    lowering = Lowering(program.graph_module, translation)
    builder = lowering.builder
    names = iter(_input_names(program))
    tied: dict[object, str] = {}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        target = spec.target
        if spec.kind is InputKind.USER_INPUT:
            name = next(names)
            value = node.meta.get("val")
            if value is not None:
                lowering.values[node] = builder.input(name, lowering.value_type(value, node))
            else:
                lowering.values[node] = None
        elif spec.kind is InputKind.PARAMETER:
            tensor = program.state_dict[str(target)]
            # a tied parameter has several names; the first stands for all
            identity = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else target
            name = tied.setdefault(identity, str(target))
            lowering.values[node] = builder.constant(tensor, name)
        elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            key = str(target)
            tensor = program.state_dict[key] if key in program.state_dict else program.constants[key]
            if not isinstance(tensor, torch.Tensor):
                raise ExportError(f"the model holds {key} of type {type(tensor).__name__}, which a graph cannot hold")
            lowering.values[node] = builder.constant(tensor, key, buffer=True)
        else:
            raise ExportError(f"the model takes {target} as {spec.kind.name.lower()}, which a graph cannot hold")
    leaves = lowering.body()
    return builder.finish(_output_tree(program, leaves), symbols=ranges_of(program, translation))


def _reject_mutation(program: ExportedProgram) -> None:
    for spec in program.graph_signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            raise ExportError(
                f"the model's forward writes to its own {spec.target}",
                expected="a forward whose result depends on its arguments only",
                fix="take the state as an argument and return the new one",
            )
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            raise ExportError(
                f"the model's forward writes to its argument {spec.target}",
                fix="clone the argument before changing it in place",
            )
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise ExportError(f"the model returns a {spec.kind.name.lower()}, which a graph cannot hold")


def _input_names(program: ExportedProgram) -> list[str]:
    """A name for each flat input: its argument, then the path inside of it, e.g. "features.0"."""
    spec = program.call_spec.in_spec
    flat = list(program.graph_signature.user_inputs)
    if spec is None:
        return [str(name) for name in flat]
    signature = program.module_call_graph[0].signature
    arguments = (signature.forward_arg_names if signature is not None else None) or []
    names = []
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    for path, _ in pytree.tree_flatten_with_path(tree)[0]:
        keys = [str(getattr(key, "idx", getattr(key, "key", getattr(key, "name", key)))) for key in path]
        if keys[0] == "0":
            position = int(keys[1])
            keys[1] = arguments[position] if position < len(arguments) else f"argument{position}"
        names.append(".".join(keys[1:]))
    return names


def _output_tree(program: ExportedProgram, leaves: Tree) -> Tree:
    spec = program.call_spec.out_spec
    assert isinstance(leaves, tuple)
    tree = pytree.tree_unflatten(list(leaves), spec) if spec is not None else tuple(leaves)
    return _plain(tree)


def _plain(tree: Any) -> Tree:
    """The structure in tuples, lists and dictionaries; a model's output class becomes a dictionary."""
    if tree is None or isinstance(tree, (Ref, bool, int, float, str)):
        return tree
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        items = [_plain(item) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    if hasattr(tree, "__dataclass_fields__"):
        return {name: _plain(getattr(tree, name)) for name in tree.__dataclass_fields__}
    raise ExportError(
        f"the model returns an object of type {type(tree).__name__}",
        expected="tensors, numbers, None, and tuples, lists, dictionaries and data classes of them",
    )
