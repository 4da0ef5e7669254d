"""Selection for gradient compression on a GPU, by Triton. Triton is imported at the first call.

So far checked by Triton's interpreter on the CPU only; no GPU has run it, and no speed is claimed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import MOST_ELEMENTS, check_inference
from taut.kernels._triton_load import load_kernels


def triton_top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the `k` entries of largest magnitude on a GPU, exactly as `top_k` does on the CPU.

    Histograms of the top 16 and the lower 15 bits give the k-th magnitude; nothing waits for the device.

    Args:
        x: float32 of any shape, contiguous, fewer than 2^31 elements, on a CUDA device, or on the CPU under
            TRITON_INTERPRET=1.
        k: 0 to the number of elements.

    Returns:
        Indices into the flattened tensor, `(k,)` int32, ascending, and values `(k,)` float32.

    Raises:
        KernelError: triton is not installed, an argument is not as above, or a gradient is asked for.
    """
    _check("x", x)
    if not isinstance(k, int) or not 0 <= k <= x.numel():
        raise KernelError(f"k: got {k!r}", expected=f"an integer from 0 to {x.numel()}, the number of elements")
    kernels = load_kernels("_triton_selection_kernels", x, "top_k")
    if k == 0:
        return x.new_empty(0, dtype=torch.int32), x.new_empty(0)
    flat = x.view(-1)
    bin_, within = _find_bin(kernels.histogram(flat), torch.full((), k, dtype=torch.int64, device=flat.device))
    low, ties = _find_bin(kernels.histogram(flat, bin_), within)
    cut = (bin_ << 15 | low).to(torch.int32)
    indices, values, _ = kernels.select(flat, cut, ties.to(torch.int32), k, clear=False)
    return indices, values


def triton_select_above(
    residual: Tensor, threshold: float, capacity: int, *, clear: bool = True
) -> tuple[Tensor, Tensor, int]:
    """Select the entries with `|residual| > threshold` on a GPU, as `select_above` does on the CPU.

    Args:
        residual: float32 of any shape, contiguous, fewer than 2^31 elements, changed in place; on a CUDA device, or on
            the CPU under TRITON_INTERPRET=1.
        threshold: 0 or more.
        capacity: most entries to take, 0 or more.
        clear: whether to set them to 0.

    Returns:
        Indices into the flattened tensor, int32, ascending; values, float32; and how many entries are above the
        threshold. Waits for the device, as the sizes depend on the data.

    Raises:
        KernelError: triton is not installed, an argument is not as above, or a gradient is asked for.
    """
    _check("residual", residual)
    if not isinstance(capacity, int) or capacity < 0:
        raise KernelError(f"capacity: got {capacity!r}", expected="an integer, 0 or more")
    if not threshold >= 0:
        raise KernelError(f"threshold: got {threshold!r}", expected="a number, 0 or more")
    kernels = load_kernels("_triton_selection_kernels", residual, "select_above")
    flat = residual.view(-1)
    capacity = min(capacity, flat.numel())
    cut = torch.full((), _largest_bits_not_above(threshold), dtype=torch.int32, device=flat.device)
    indices, values, found = kernels.select(flat, cut, torch.zeros_like(cut), capacity, clear=clear)
    count = int(found)
    taken = min(count, capacity)
    return indices[:taken], values[:taken], count


def _find_bin(bins: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The bin of the k-th largest, and its rank within that bin."""
    from_top = bins.flip(0).cumsum(0)
    place = torch.searchsorted(from_top, k)
    return bins.numel() - 1 - place, k - (from_top[place] - bins.flip(0)[place])


def _largest_bits_not_above(threshold: float) -> int:
    if threshold > torch.finfo(torch.float32).max:
        return 0x7F800000 if math.isinf(threshold) else 0x7F7FFFFF
    below = torch.tensor(threshold, dtype=torch.float64).float()
    if below.item() > threshold:
        below = torch.nextafter(below, torch.zeros(()))
    return int(below.view(torch.int32)) & 0x7FFFFFFF


def _check(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.layout != torch.strided or not x.is_contiguous():
        described = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise KernelError(f"{name}: is {described}", expected="float32, dense and contiguous", fix="convert it")
    if x.numel() > MOST_ELEMENTS:
        raise KernelError(f"{name}: has {x.numel()} elements", expected=f"at most {MOST_ELEMENTS}", fix="split it")
    check_inference("selection", x, None)
