"""Writing small programs by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from taut.codegen import Operand, Recipe
from taut.graph import Ref
from taut.runtime import (
    DTYPES,
    Executable,
    Function,
    Kernel,
    Opcode,
    OperandType,
    Parameter,
    Program,
    Session,
    ShapeCode,
    SharedLibrary,
    load,
)

Op = Opcode
Sh = ShapeCode
F32 = DTYPES.index(torch.float32)
I64 = DTYPES.index(torch.int64)
MATRIX = OperandType(torch.float32, 2)
BINARY = (MATRIX, MATRIX, OperandType(torch.float32, 2, written=True))
RECIPE = Recipe("map", (Operand("float32", (None, None)),) * 3)


def flat(*words: Any) -> tuple[int, ...]:
    """Words, with lists preceded by their length."""
    out: list[int] = []
    for word in words:
        out += [len(word), *word] if isinstance(word, (list, tuple)) else [int(word)]
    return tuple(out)


def tensor(name: str, *shape: int | str, dtype: torch.dtype = torch.float32) -> Parameter:
    return Parameter(name, "tensor", dtype, shape)


def integer(name: str) -> Parameter:
    return Parameter(name, "int")


def nested(name: str) -> Parameter:
    return Parameter(name, "object")


def shape(*words: int) -> tuple[int, ...]:
    """A SHAPE with its own code, which `function` puts in its place."""
    return (Op.SHAPE, -1, *words)


def sizes(*values: int) -> tuple[int, ...]:
    """A SHAPE that puts values into slots 0, 1, ...."""
    return shape(*(word for slot, value in enumerate(values) for word in (Sh.PUSH, value, Sh.STORE, slot)))


def function(*instructions: tuple[int, ...], takes: int = 0, gives: int = 1, **parts: Any) -> Function:
    """A function with 12 registers and 16 slots."""
    code: list[int] = []
    placed = []
    for instruction in instructions:
        if instruction[:2] == (Op.SHAPE, -1):
            start = len(code)
            code += map(int, instruction[2:])
            placed.append((int(Op.SHAPE), start, len(code)))
        else:
            placed.append(instruction)
    parts = {"name": "f", "registers": 12, "slots": 16, **parts}
    return Function(parameters=takes, results=gives, instructions=tuple(placed), shape_code=tuple(code), **parts)


def program(
    parameters: Sequence[Parameter],
    *instructions: tuple[int, ...],
    functions: Sequence[Function] = (),
    **parts: Any,
) -> Program:
    """A program whose function 0 has these instructions, ending in RETURN."""
    gives = instructions[-1][1] if instructions[-1][0] == Op.RETURN else 0
    main = function(*instructions, takes=len(parameters), gives=gives, name="main")
    outputs = tuple(Ref(i) for i in range(gives))
    return Program((main, *functions), tuple(parameters), outputs, **parts)


def kernels(*names: str) -> tuple[Kernel, ...]:
    """Kernels of the compiled library; each takes two matrices and writes a third."""
    return tuple(Kernel(name, BINARY, RECIPE) for name in names)


def loaded(made: Program, library: Path | None = None) -> Executable:
    if library is None:
        return load(made)
    return load(made, SharedLibrary(library, [kernel.name for kernel in made.kernels]))


def session(made: Program, library: Path | None = None, **limits: Any) -> Session:
    return loaded(made, library).session(**limits)
