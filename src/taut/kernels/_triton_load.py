"""Imports Triton kernels at their first call."""

import importlib
from types import ModuleType

from torch import Tensor

from taut.errors import KernelError


def load_kernels(module: str, x: Tensor, instead: str) -> ModuleType:
    """Import a module of Triton kernels for a tensor that they are to run on.

    Args:
        module: of this package; it imports triton and has `interpreting()`.
        x: the first argument of the kernel.
        instead: the kernel for the CPU.

    Raises:
        KernelError: triton is not installed, or `x` is not on a CUDA device and Triton does not interpret.
    """
    try:
        kernels = importlib.import_module(f"taut.kernels.{module}")
    except ImportError as error:
        raise KernelError(
            f"triton cannot be imported: {error}",
            expected="triton, which comes with builds of torch for CUDA",
            fix=f"install a build of torch for CUDA, or use the CPU kernel {instead}",
        ) from error
    if not (x.is_cuda or kernels.interpreting()):
        raise KernelError(f"x: is on {x.device}", expected="a CUDA tensor", fix=f"use {instead} on the CPU")
    return kernels
