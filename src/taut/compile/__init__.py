"""From a graph to a program: fusion groups, kernels, memory plan, bytecode.

The package is callable: `taut.compile(model, example_inputs, dynamic_shapes=...)`.
"""

import sys
import types
from typing import Any

from taut.compile._model import CompiledModel, CompileReport, compile_model

__all__ = ["CompileReport", "CompiledModel", "compile_model"]


class _Callable(types.ModuleType):
    """A package that is called like its main function."""

    def __call__(self, *args: Any, **kwargs: Any) -> CompiledModel:
        return compile_model(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
