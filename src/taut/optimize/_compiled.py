"""The compiler as a technique: one native program in place of the interpreter."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from taut.codegen import find_compiler
from taut.compile import CompiledModel, compile_model, fallback_operators
from taut.errors import ArgumentError, BuildError
from taut.graph import Graph

COMPILE = "compile"
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


def without_compiling(steps: Sequence[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], bool]:
    """The passes of a recipe, and whether it ends with the compiler.

    Raises:
        ArgumentError: the compiler stands elsewhere, or is given options.
    """
    names = [name for name, _ in steps]
    if COMPILE in names[:-1]:
        raise ArgumentError("recipe", names, expected=f"{COMPILE} as the last step")
    compiled = names[-1:] == [COMPILE]
    if compiled and steps[-1][1]:
        raise ArgumentError(COMPILE, steps[-1][1], expected="no options")
    return list(steps[:-1] if compiled else steps), compiled


def compile_graph(graph: Graph) -> CompiledModel:
    """The program of a graph; raises as `taut.compile` does."""
    return compile_model(graph)


def described(program: CompiledModel) -> str:
    """What the program consists of, in a line."""
    kernels = f"{program.report.kernels} kernels generated"
    others = fallback_operators(program.program)
    if not others:
        return f"{kernels}, nothing on ATen"
    return f"{kernels}; on ATen: {', '.join(f'{op} ({count})' for op, count in sorted(others.items()))}"
