"""The program format, its verifier and the native virtual machine that runs it."""

from taut.runtime._disassemble import disassemble
from taut.runtime._executable import (
    Executable,
    InstructionTime,
    Library,
    Session,
    SharedLibrary,
    Span,
    load,
    regions_run_alone,
    verify,
    worker_seconds,
)
from taut.runtime._native import Object
from taut.runtime._program import (
    DEVICE_COUNT,
    DTYPES,
    MAX_RANK,
    MAX_WORKERS,
    Function,
    Instruction,
    Kernel,
    Opcode,
    OperandType,
    Parameter,
    Program,
    ShapeCode,
)
from taut.runtime._shape_values import compute_sizes
from taut.runtime._storage import load_program, program_hash, save_program

__all__ = [
    "DEVICE_COUNT",
    "DTYPES",
    "MAX_RANK",
    "MAX_WORKERS",
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
    "Span",
    "compute_sizes",
    "disassemble",
    "load",
    "load_program",
    "program_hash",
    "regions_run_alone",
    "save_program",
    "verify",
    "worker_seconds",
]
