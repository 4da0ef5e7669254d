"""The program format, its verifier and the native virtual machine that runs it."""

from taut.runtime._executable import Executable, InstructionTime, Library, Session, SharedLibrary, load
from taut.runtime._native import Object
from taut.runtime._program import (
    DTYPES,
    MAX_RANK,
    Function,
    Instruction,
    Kernel,
    Opcode,
    OperandType,
    Parameter,
    Program,
    ShapeCode,
)

__all__ = [
    "DTYPES",
    "MAX_RANK",
    "Executable",
    "Function",
    "Instruction",
    "InstructionTime",
    "Kernel",
    "Library",
    "Object",
    "Opcode",
    "OperandType",
    "Parameter",
    "Program",
    "Session",
    "ShapeCode",
    "SharedLibrary",
    "load",
]
