"""Poisoned surroundings and references in float64 for the kernels that look through a window."""

import ctypes
import mmap

import numpy as np
import torch

from taut.codegen._call import Kernel
from taut.codegen._convolution_window import Window
from taut.codegen._recipe import Operand

EDGE = 3  # pixels and channels around a buffer
SENTINEL = np.float32(-12345.0)


def guarded(values):
    """A copy that ends where a page without access begins: reading past it ends the process."""
    pages = -(-values.nbytes // mmap.PAGESIZE) + 1
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = (pages - 1) * mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + end), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = np.frombuffer(memory, values.dtype, values.size, end - values.nbytes).reshape(values.shape)
    copy[...] = values
    return copy


def image(rng, *shape, contiguous=False):
    """Random float32 values: contiguous and guarded, or a view in a larger array of NaN whose innermost stride is 1."""
    values = rng.standard_normal(shape).astype(np.float32)
    if contiguous:
        return guarded(values)
    around = np.full([size + 2 * EDGE for size in shape], np.nan, np.float32)
    view = around[tuple(slice(EDGE, EDGE + size) for size in shape)]
    view[...] = values
    return view


def run(kernel: Kernel, inputs, shape):
    """The output of a kernel, after checking that nothing around it was written."""
    around = np.full([size + 2 * EDGE for size in shape], SENTINEL, np.float32)
    inner = tuple(slice(EDGE, EDGE + size) for size in shape)
    kernel(*inputs, around[inner])
    output = around[inner].copy()
    around[inner] = SENTINEL
    assert np.all(around == SENTINEL)
    return output


def outputs(window: Window, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of the output."""
    return window.output(0, rows) or 0, window.output(1, columns) or 0


def channels_of(operand: Operand) -> int:
    """The innermost size, which is static."""
    return operand.shape[-1] or 0


def padded(x, window: Window, value: float) -> torch.Tensor:
    """An image [N, H, W, C] as float64 [N, C, H, W] with its padding."""
    top, bottom, left, right = window.padding
    tensor = torch.from_numpy(np.ascontiguousarray(x)).double().permute(0, 3, 1, 2)
    return torch.nn.functional.pad(tensor, (left, right, top, bottom), value=value)


def convolve(x, weight, window: Window, groups: int = 1):
    """The convolution of [N, H, W, C] with [O, C / groups, KH, KW] in float64, as [N, OH, OW, O]."""
    weights = torch.from_numpy(weight).double()
    sums = torch.nn.functional.conv2d(
        padded(x, window, 0.0), weights, stride=window.stride, dilation=window.dilation, groups=groups
    )
    return sums.permute(0, 2, 3, 1).numpy()
