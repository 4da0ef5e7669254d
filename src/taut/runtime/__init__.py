"""The program format, its verifier and the native virtual machine that runs it."""

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
    "Function",
    "Instruction",
    "Kernel",
    "Opcode",
    "OperandType",
    "Parameter",
    "Program",
    "ShapeCode",
]
