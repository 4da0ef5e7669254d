"""The compiler as a technique: one native program in place of the interpreter."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from taut.codegen import find_compiler
from taut.compile import CompiledModel, compile_model, fallback_operators
from taut.compile.scheduling import propose_queues, with_queues
from taut.errors import ArgumentError, BuildError
from taut.graph import Graph

COMPILE = "compile"
QUEUES = "queues"
COMPILE_TITLE = "one compiled program with generated kernels in place of the interpreter"
_UNSUITED = ("channels_last", "bfloat16", "fuse_linear", "fuse_convolution")
"""Passes whose layouts and operators serve ATen: the compiler chooses its own, and would leave theirs to ATen."""


def missing_for_compiling() -> str:
    """Why this host cannot generate kernels; empty where it can."""
    if importlib.util.find_spec("halide") is None:
        return "the package halide is not installed: pip install -c constraints.txt 'taut[compile]'"
    try:
        find_compiler()
    except BuildError as error:
        return error.message
    return ""


def suited(steps: Sequence[tuple[str, dict[str, Any]]]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The steps that a program can stand on."""
    return tuple(step for step in steps if step[0] not in _UNSUITED)


def without_compiling(steps: Sequence[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], dict[str, Any] | None]:
    """The passes of a recipe, and the options of the compiler if it ends with that, else None.

    Raises:
        ArgumentError: the compiler stands elsewhere, or is given unknown options.
    """
    names = [name for name, _ in steps]
    if COMPILE in names[:-1]:
        raise ArgumentError("recipe", names, expected=f"{COMPILE} as the last step")
    if names[-1:] != [COMPILE]:
        return list(steps), None
    options = dict(steps[-1][1])
    queues = options.get(QUEUES, [])
    if options.keys() - {QUEUES} or not isinstance(queues, list) or not all(isinstance(one, str) for one in queues):
        raise ArgumentError(COMPILE, options, expected=f"no options but {QUEUES}, the steps of each worker as text")
    return list(steps[:-1]), options


def compile_graph(graph: Graph) -> CompiledModel:
    """The program of a graph; raises as `taut.compile` does."""
    return compile_model(graph)


def on_workers(program: CompiledModel, options: Mapping[str, Any]) -> CompiledModel:
    """The program with the schedule that the compiler's options hold, if any.

    Raises:
        TautError: the schedule does not fit this program, or its kernels cannot be generated here.
    """
    return with_queues(program, options[QUEUES]) if options.get(QUEUES) else program


def propose_schedule(
    program: CompiledModel, inputs: tuple[Any, ...], workers: int, budget: float
) -> tuple[CompiledModel, dict[str, Any]] | None:
    """The program on several workers with the options that say so; None if that is not surely faster."""
    found = propose_queues(program, inputs, workers, budget=budget) if isinstance(program, CompiledModel) else None
    return None if found is None else (found[0], {QUEUES: found[1]})


def described(program: CompiledModel) -> str:
    """What the program consists of, in a line."""
    kernels = f"{program.report.kernels} kernels generated"
    others = fallback_operators(program.program)
    if not others:
        return f"{kernels}, nothing on ATen"
    return f"{kernels}; on ATen: {', '.join(f'{op} ({count})' for op, count in sorted(others.items()))}"
