"""Calling built kernels on numpy arrays, for tests and benchmarks; programs call them from the virtual machine."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from taut.codegen._build import Built
from taut.codegen._recipe import Operand, Recipe
from taut.errors import ArgumentError, KernelError

# Code of the kind, bits, and the numpy dtype that carries it; bfloat16 travels as its bits.
_KINDS = {
    "float32": (2, 32, np.float32),
    "bfloat16": (4, 16, np.uint16),
    "int64": (0, 64, np.int64),
    "int32": (0, 32, np.int32),
    "int8": (0, 8, np.int8),
    "uint8": (1, 8, np.uint8),
    "bool": (1, 1, np.bool_),
}


class _Dimension(ctypes.Structure):
    _fields_ = [
        ("min", ctypes.c_int32),
        ("extent", ctypes.c_int32),
        ("stride", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_uint64),
        ("device_interface", ctypes.c_void_p),
        ("host", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("dimensions", ctypes.c_int32),
        ("dim", ctypes.POINTER(_Dimension)),
        ("padding", ctypes.c_void_p),
    ]


class Kernel:
    """A kernel of a built library.

    Args:
        built: from `build`.
        recipe: one of those it was built from.

    Raises:
        ArgumentError: the library does not hold the recipe.
    """

    def __init__(self, built: Built, recipe: Recipe) -> None:
        if built.path is None or recipe.key not in built.symbols:
            reason = built.failed.get(recipe.key, "it was not among those built")
            raise ArgumentError("recipe", recipe.template, expected="a recipe of the library", fix=reason)
        library = ctypes.CDLL(str(built.path))
        self._function = library[built.symbols[recipe.key]]
        self._message = library.taut_last_error
        self._message.restype = ctypes.c_char_p
        self._recipe = recipe

    def __call__(self, *arrays: npt.NDArray[np.generic]) -> None:
        """Run on arrays of any strides, inputs first, then the outputs that are written.

        Raises:
            ArgumentError: their number or a dtype is not the recipe's.
            KernelError: the kernel refused the shapes or strides.
        """
        self.bind(*arrays)()

    def bind(self, *arrays: npt.NDArray[np.generic]) -> Bound:
        """The call with its arguments prepared, for timing.

        Raises:
            ArgumentError: their number or a dtype is not the recipe's.
        """
        operands = self._recipe.operands
        if len(arrays) != len(operands):
            raise ArgumentError("arrays", len(arrays), expected=f"{len(operands)} arrays")
        return Bound(
            self._function, self._message, [_buffer(*pair) for pair in zip(arrays, operands, strict=True)], arrays
        )


class Bound:
    """A kernel with its arguments; keeps the arrays alive."""

    def __init__(
        self,
        function: ctypes._NamedFuncPointer,
        message: ctypes._NamedFuncPointer,
        buffers: Sequence[_Buffer],
        arrays: Sequence[npt.NDArray[np.generic]],
    ) -> None:
        self._message = message
        self._buffers = buffers
        self._arrays = arrays
        self.function = function
        self.arguments = (ctypes.c_void_p * len(buffers))(*[ctypes.addressof(buffer) for buffer in buffers])

    def __call__(self) -> None:
        """Run.

        Raises:
            KernelError: the kernel refused the shapes or strides.
        """
        if self.function(self.arguments) != 0:
            raise KernelError(self._message().decode(errors="replace"))


def _buffer(array: npt.NDArray[np.generic], operand: Operand) -> _Buffer:
    code, bits, dtype = _KINDS[operand.dtype]
    if array.dtype != dtype:
        raise ArgumentError("arrays", str(array.dtype), expected=str(np.dtype(dtype)))
    strides = [stride // array.itemsize for stride in array.strides]
    if strides and (array.size == 0 or array.shape[-1] == 1):
        strides[-1] = 1  # it means nothing here, but the kernel compares it
    dimensions = (_Dimension * max(array.ndim, 1))(
        *[_Dimension(0, *pair, 0) for pair in zip(reversed(array.shape), reversed(strides), strict=True)]
    )
    return _Buffer(0, None, array.ctypes.data or 64, 0, code, bits, 1, array.ndim, dimensions, None)
