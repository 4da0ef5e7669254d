"""From a graph to a program: fusion groups, kernels, memory plan, bytecode.

The package is callable: `taut.compile(model, example_inputs, dynamic_shapes=...)`.
"""

import sys
import types
from typing import Any

from taut.compile._builder import ProgramBuilder
from taut.compile._callable import CallableProgram, fallback_operators
from taut.compile._fold import CHILD, TENSOR, Case, fold
from taut.compile._inspect import (
    Inspection,
    Memory,
    Step,
    inspect_program,
    random_inputs,
    seconds_by_label,
)
from taut.compile._model import CompiledModel, CompileReport, compile_model
from taut.compile._save import check_program_destination, example_of, failed_kernels, is_program, load, save
from taut.compile.scheduling import (
    ScheduledModel,
    ScheduleReport,
    StreamedModel,
    schedule,
    schedule_of,
    schedule_streams,
)

__all__ = [
    "CHILD",
    "TENSOR",
    "CallableProgram",
    "Case",
    "CompileReport",
    "CompiledModel",
    "Inspection",
    "Memory",
    "ProgramBuilder",
    "ScheduleReport",
    "ScheduledModel",
    "Step",
    "StreamedModel",
    "check_program_destination",
    "compile_model",
    "example_of",
    "failed_kernels",
    "fallback_operators",
    "fold",
    "inspect_program",
    "is_program",
    "load",
    "random_inputs",
    "save",
    "schedule",
    "schedule_of",
    "schedule_streams",
    "seconds_by_label",
]


class _Callable(types.ModuleType):
    """A package that is called like its main function."""

    def __call__(self, *args: Any, **kwargs: Any) -> CompiledModel:
        return compile_model(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
