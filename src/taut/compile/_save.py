"""A compiled model as a folder: the program and its constants, without machine code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sympy
import torch

from taut._files import check_new_folder, write_folder
from taut.compile._callable import CallableProgram
from taut.compile._generate import Progress, generate, library_of
from taut.compile._model import CompiledModel
from taut.errors import ArgumentError, ArtefactError, BuildError
from taut.graph import Graph, InputChecker, Node, ScalarType, TensorType
from taut.runtime import Parameter, Program, load_program, save_program
from taut.runtime import load as load_executable

PROGRAM_FILE, CONSTANTS_FILE = "program.json", "program.safetensors"
_EXAMPLE, _FAILED = "example", "failed"


def is_program(path: Path) -> bool:
    """Whether a folder holds a program."""
    return (path / PROGRAM_FILE).is_file()


def check_program_destination(path: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder that cannot or may not be written.

    Raises:
        ArgumentError: it exists and `force` is False, or it is no program that could be replaced.
        StorageError: the folder that it goes to is missing or not writable.
    """
    check_new_folder(path, force=force, marker=PROGRAM_FILE, what="compiled program")


def save(
    model: CallableProgram, path: str | Path, *, example_inputs: tuple[Any, ...] | None = None, force: bool = False
) -> Path:
    """Write a compiled model to a folder, whole or not at all.

    The folder holds the program as JSON and the constants as safetensors. Kernels are stored as recipes; `load`
    generates them for the host that it runs on.

    Args:
        model: what `taut.compile` made, or `load` read.
        path: the folder to make.
        example_inputs: positional inputs whose shapes and largest integers are noted, so that `taut inspect` can make
            inputs like them; their values are not stored.
        force: replace a program that is there already.

    Returns:
        The folder.

    Raises:
        ArgumentError: the path exists and `force` is False, or something else than a program is there.
        StorageError: it cannot be written; nothing is left behind.
    """
    if not isinstance(model, CallableProgram):
        raise ArgumentError(
            "model", type(model).__name__, expected="a compiled model", fix="compile it with taut.compile first"
        )
    folder = _path(path)
    check_program_destination(folder, force=force)
    notes = dict(model.program.notes)
    if isinstance(model, CompiledModel):
        notes[_FAILED] = json.dumps(dict(model.report.failed))
    if example_inputs is not None:
        notes[_EXAMPLE] = json.dumps([_described(item) for item in model.bind(*example_inputs)])
    program = dataclasses.replace(model.program, notes=notes)
    write_folder(folder, lambda staging: save_program(program, staging / PROGRAM_FILE, staging / CONSTANTS_FILE))
    return folder


def load(path: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> CallableProgram:
    """Load a compiled model that `save` wrote; safe on files from anywhere.

    Its kernels are generated for this host, or taken from the cache.

    Args:
        path: the folder.
        workers: threads of a call where the program is scheduled over several, with its own; by default as many as it
            asks for and this process has CPUs.
        progress: called as kernels are generated.

    Returns:
        The program, called like the original model.

    Raises:
        ArgumentError: the path is none, or the number of workers is out of range.
        ArtefactError: it is no program, or is truncated, tampered with or from a newer version.
        GraphError: the program is malformed; nothing of it has run then.
        MissingExtraError: it has kernels to generate, and the extra "compile" is not installed.
        BuildError: a kernel cannot be generated on this host.
    """
    program = read_program(_path(path))
    built = generate(program, progress)
    if built.failed:
        key, reason = next(iter(built.failed.items()))
        name = next(kernel.name for kernel in program.kernels if kernel.recipe is not None and kernel.recipe.key == key)
        raise BuildError(
            f"{path}: {len(built.failed)} kernels could not be generated; the first, {name}: {reason}",
            expected="a host like the one where it was compiled",
            fix="compile the model again on this host: what cannot be generated runs on ATen then",
        )
    session = load_executable(program, library_of(program, built)).session(workers=workers)
    return CallableProgram(program, session, InputChecker(_signature(program.parameters)))


def _path(path: object) -> Path:
    if not isinstance(path, str | Path):
        raise ArgumentError("path", path, expected="the path of a folder")
    return Path(path)


def read_program(path: Path) -> Program:
    """The program in a folder, verified, without its kernels; raises as `load` does."""
    if not is_program(path):
        what = "has no program.json" if path.is_dir() else "no such folder"
        raise ArtefactError(f"{path}: {what}", expected="a folder written by taut compile")
    return load_program(path / PROGRAM_FILE, path / CONSTANTS_FILE)


def failed_kernels(program: Program) -> dict[str, str]:
    """Kernels that could not be generated where the program was compiled: where they come from, and why."""
    noted = _note(program, _FAILED)
    return {str(key): str(value) for key, value in noted.items()} if isinstance(noted, Mapping) else {}


def example_of(program: Program) -> list[tuple[tuple[int, ...], int]] | None:
    """Shape and largest integer of each input that the program was compiled with, where that was noted."""
    noted = _note(program, _EXAMPLE)
    if not isinstance(noted, list) or len(noted) != len(program.parameters):
        return None
    found = []
    for item in noted:
        match item:
            case [list(shape), int(largest)] if all(type(size) is int and size >= 0 for size in shape):
                found.append((tuple(shape), largest))
            case _:
                return None
    return found


def _note(program: Program, name: str) -> Any:
    try:
        return json.loads(program.notes.get(name, "null"))
    except (ValueError, RecursionError):
        return None


def _described(value: Any) -> tuple[list[int], int]:
    if isinstance(value, torch.Tensor):
        whole = not (value.is_floating_point() or value.is_complex()) and value.numel() > 0
        return list(value.shape), int(value.max()) if whole else 0
    return [], int(value)


def _signature(parameters: tuple[Parameter, ...]) -> Graph:
    """A graph of inputs alone, by which calls are bound; their sizes are checked by the program."""
    nodes = []
    for number, parameter in enumerate(parameters):
        symbols = tuple(sympy.Symbol(f"s{number}_{axis}") for axis in range(len(parameter.shape)))
        kind = ScalarType("int") if parameter.dtype is None else TensorType(symbols, parameter.dtype)
        nodes.append(Node(number, "input", (parameter.name,), outputs=(kind,)))
    return Graph(tuple(nodes), tuple(range(len(nodes))), ())
