"""Arrays whose neighbourhood betrays a kernel that reads or writes outside."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def fenced(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that ends at a page that must not be touched: a kernel that does, ends the process."""
    pages = -(-array.nbytes // _PAGE)
    memory = mmap.mmap(-1, (pages + 1) * _PAGE)
    whole = np.frombuffer(memory, np.uint8)
    address = whole.ctypes.data + pages * _PAGE
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    result = whole[pages * _PAGE - array.nbytes : pages * _PAGE].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def poisoned(array: npt.NDArray[Any], margin: int = 3) -> npt.NDArray[Any]:
    """A strided copy amid NaN (or the largest integer): what is read outside spoils the result."""
    around = np.full([size + 2 * margin for size in array.shape], poison(array.dtype), array.dtype)
    result = around[tuple(slice(margin, margin + size) for size in array.shape)]
    result[...] = array
    return result


def poison(dtype: np.dtype) -> float:
    """What `poisoned` puts around."""
    return np.nan if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max


def untouched(array: npt.NDArray[Any], margin: int = 3) -> bool:
    """Whether everything around an array from `poisoned` is as it was."""
    around = array.base
    assert around is not None
    inside = np.zeros(around.shape, bool)
    inside[tuple(slice(margin, margin + size) for size in array.shape)] = True
    return bool(np.isnan(around[~inside]).all())
