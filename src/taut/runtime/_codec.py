"""The JSON form of a program; constants appear by their content hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from taut.codegen import Operand, Recipe
from taut.errors import ArtefactError
from taut.graph import decode_argument, decode_graph, decode_tree, encode_argument, encode_graph, encode_tree
from taut.runtime._program import DTYPES, Function, Kernel, OperandType, Parameter, Program

_Kind = TypeVar("_Kind")
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
_INTEGER_LIMIT = 2**63


def encode_program(program: Program, constants: Sequence[str]) -> dict[str, Any]:
    """The program without its constants' content, for which `constants` holds the hashes."""
    return {
        "functions": [_encode_function(function) for function in program.functions],
        "parameters": [
            [item.name, item.kind, _dtype_name(item.dtype), list(item.shape)] for item in program.parameters
        ],
        "outputs": encode_tree(program.outputs),
        "constants": list(constants),
        "kernels": [_encode_kernel(kernel) for kernel in program.kernels],
        "fallbacks": [encode_graph(graph) for graph in program.fallbacks],
        "messages": list(program.messages),
        "notes": dict(program.notes),
    }


def decode_program(data: Any, constants: Mapping[str, torch.Tensor]) -> Program:
    """The program from its JSON form; `constants` are the tensors by content hash.

    Raises:
        ArtefactError: if a part is missing or malformed.
    """
    document = _typed(data, dict, "program")
    hashes = [_typed(item, str, "constant") for item in _list(document, "constants")]
    missing = [item for item in hashes if item not in constants]
    if missing:
        raise ArtefactError(f"the constant {missing[0][:40]} is missing")
    notes = _typed(document.get("notes"), dict, "notes")
    return Program(
        functions=tuple(_decode_function(item) for item in _list(document, "functions")),
        parameters=tuple(_decode_parameter(item) for item in _list(document, "parameters")),
        outputs=decode_tree(document.get("outputs")),
        constants=tuple(constants[item] for item in hashes),
        kernels=tuple(_decode_kernel(item) for item in _list(document, "kernels")),
        fallbacks=tuple(decode_graph(item, {}) for item in _list(document, "fallbacks")),
        messages=tuple(_typed(item, str, "message") for item in _list(document, "messages")),
        notes={name: _typed(text, str, "note") for name, text in notes.items()},
    )


def _encode_function(function: Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "parameters": function.parameters,
        "results": function.results,
        "registers": function.registers,
        "slots": function.slots,
        "instructions": [list(map(int, instruction)) for instruction in function.instructions],
        "shape_code": list(map(int, function.shape_code)),
        "labels": list(function.labels),
    }


def _decode_function(data: Any) -> Function:
    document = _typed(data, dict, "function")
    return Function(
        _typed(document.get("name"), str, "name of a function"),
        *(_word(document.get(name)) for name in ("parameters", "results", "registers", "slots")),
        instructions=tuple(_words(item) for item in _list(document, "instructions")),
        shape_code=_words(_list(document, "shape_code")),
        labels=tuple(_typed(item, str, "label") for item in _list(document, "labels")),
    )


def _decode_parameter(data: Any) -> Parameter:
    match data:
        case [str(name), str(kind), None, []]:
            return Parameter(name, kind)
        case [str(name), str(kind), str(dtype), list(shape)]:
            sizes = tuple(size if isinstance(size, str) else _word(size) for size in shape)
            return Parameter(name, kind, _dtype(dtype), sizes)
    raise ArtefactError(f"malformed parameter {str(data)[:80]}")


def _encode_kernel(kernel: Kernel) -> dict[str, Any]:
    recipe = kernel.recipe
    return {
        "name": kernel.name,
        "operands": [[_dtype_name(item.dtype), item.rank, item.written] for item in kernel.operands],
        "recipe": None if recipe is None else _encode_recipe(recipe),
    }


def _decode_kernel(data: Any) -> Kernel:
    document = _typed(data, dict, "kernel")
    operands = []
    for item in _list(document, "operands"):
        match item:
            case [str(dtype), int(rank), bool(written)] if type(rank) is int:
                operands.append(OperandType(_dtype(dtype), rank, written))
            case _:
                raise ArtefactError(f"malformed operand {str(item)[:80]}")
    recipe = document.get("recipe")
    name = _typed(document.get("name"), str, "name of a kernel")
    return Kernel(name, tuple(operands), None if recipe is None else _decode_recipe(recipe))


def _encode_recipe(recipe: Recipe) -> dict[str, Any]:
    # Floats as the graph's codec writes them: exactly, and infinities too.
    return {
        "template": recipe.template,
        "operands": [[item.dtype, list(item.shape), item.dense] for item in recipe.operands],
        "outputs": recipe.outputs,
        "parameters": {name: encode_argument(value) for name, value in recipe.parameters.items()},
        "expression": [[encode_argument(item) for item in entry] for entry in recipe.expression],
    }


def _decode_recipe(data: Any) -> Recipe:
    document = _typed(data, dict, "recipe")
    operands = []
    for item in _list(document, "operands"):
        match item:
            case [str(dtype), list(shape), bool(dense)] if dtype in _DTYPES:
                operands.append(Operand(dtype, tuple(None if size is None else _word(size) for size in shape), dense))
            case _:
                raise ArtefactError(f"malformed operand {str(item)[:80]}")
    parameters = _typed(document.get("parameters"), dict, "parameters")
    return Recipe(
        _typed(document.get("template"), str, "template"),
        tuple(operands),
        _word(document.get("outputs")),
        {name: _scalar(value) for name, value in parameters.items()},
        tuple(tuple(_scalar(item) for item in _typed(entry, list, "entry")) for entry in _list(document, "expression")),
    )


def _scalar(data: Any) -> bool | int | float | str:
    value = decode_argument(data)
    if not isinstance(value, (bool, int, float, str)):
        raise ArtefactError(f"malformed scalar {str(data)[:80]}")
    return value


def _dtype_name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ArtefactError(f"unknown dtype {name[:40]}", expected=", ".join(_DTYPES))
    return _DTYPES[name]


def _words(data: Any) -> tuple[int, ...]:
    return tuple(map(_word, _typed(data, list, "list of words")))


def _word(data: Any) -> int:
    if type(data) is not int or not -_INTEGER_LIMIT <= data < _INTEGER_LIMIT:
        raise ArtefactError(f"malformed word {str(data)[:80]}", expected="an integer of 64 bits")
    return data


def _typed(data: Any, kind: type[_Kind], what: str) -> _Kind:
    if not isinstance(data, kind):
        raise ArtefactError(f"malformed {what} {str(data)[:80]}", expected=kind.__name__)
    return data


def _list(document: dict[str, Any], name: str) -> list[Any]:
    return _typed(document.get(name), list, name)
