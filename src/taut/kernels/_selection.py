"""Selection for gradient compression: moments of magnitudes, and entries by rank or by threshold.

Magnitudes are ordered as NaN, infinity, numbers: what is not finite is selected first, so that it propagates and never
vanishes. Results have the same bits on every instruction set and thread count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import check_inference, check_plain
from taut.kernels._load import _native

MAGNITUDE_BINS: int = _native.magnitude_bins
"""Bins of a histogram of magnitudes: the bits of a float32 without its sign, shifted right by 15."""

_library = torch.library.Library("taut", "FRAGMENT")
_library.define("top_k(Tensor x, SymInt k) -> (Tensor, Tensor)")
_library.define("accumulate_and_select_top_k(Tensor gradient, Tensor(a!) residual, SymInt k) -> (Tensor, Tensor)")
_library.define(
    "accumulate_moments(Tensor gradient, Tensor(a!) residual, bool log, bool histogram) -> (Tensor, Tensor)"
)
_library.define("exceedance_moments(Tensor x, float threshold, bool log) -> Tensor")
_library.define(
    "select_above(Tensor(a!) residual, float threshold, SymInt capacity, bool clear) -> (Tensor, Tensor, Tensor)"
)


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of some magnitudes, computed in float64.

    Attributes:
        count: how many there are.
        mean: 0 where there are none, like the second moment and the maximum.
        second: mean of their squares.
        mean_log: mean of the natural logarithms of those that are not 0, 0 where there are none; NaN unless asked for.
        maximum: the largest.
        nonzero: how many are not 0.
        histogram: `(MAGNITUDE_BINS,)` int32, how many there are in each bin; None unless asked for.
    """

    count: int
    mean: float
    second: float
    mean_log: float
    maximum: float
    nonzero: int
    histogram: Tensor | None = None


def top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the `k` entries of largest magnitude, exactly; among equal ones the first.

    Args:
        x: float32 of any shape, contiguous, fewer than 2^31 elements.
        k: 0 to the number of elements.

    Returns:
        Indices into the flattened tensor, `(k,)` int32, ascending, and values `(k,)` float32.

    Raises:
        KernelError: `x` or `k` is not as above, or a gradient is asked for.

    Large tensors are read once: a sample bounds the k-th magnitude from below, and a radix histogram finds it among the
    entries above the bound, or in the whole tensor where these turn out too few.
    """
    _check(x=x)
    _check_count("k", k, x.numel())
    return torch.ops.taut.top_k.default(x, k)


def accumulate_and_select_top_k(gradient: Tensor, residual: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Add a gradient to the residual, select the `k` entries of largest magnitude of the sum, and set these to 0 in it.

    Args:
        gradient: float32, contiguous, as many elements as the residual.
        residual: float32, contiguous, changed in place; what was sent plus the new residual is the sum exactly.
        k: 0 to the number of elements.

    Returns:
        As `top_k` returns for the sum.

    Raises:
        KernelError: an argument is not as above; nothing is changed then.
    """
    _check(gradient=gradient, residual=residual)
    _check_count("k", k, residual.numel())
    return torch.ops.taut.accumulate_and_select_top_k.default(gradient, residual, k)


def accumulate_moments(gradient: Tensor, residual: Tensor, *, log: bool = False, histogram: bool = False) -> Moments:
    """Add a gradient to the residual and take the moments of the magnitudes of the sum, in one pass.

    Args:
        gradient: float32, contiguous, as many elements as the residual.
        residual: float32, contiguous, changed in place.
        log: take the mean logarithm too.
        histogram: count magnitudes in bins too.

    Returns:
        The moments; NaN or infinity where the sum holds such values.

    Raises:
        KernelError: an argument is not as above; nothing is changed then.
    """
    _check(gradient=gradient, residual=residual)
    moments, bins = torch.ops.taut.accumulate_moments.default(gradient, residual, log, histogram)
    return _to_moments(moments, bins if histogram else None)


def exceedance_moments(x: Tensor, threshold: float, *, log: bool = False) -> Moments:
    """Take the moments of `|x| - threshold` over the entries with `|x| > threshold`; NaN counts as one.

    Args:
        x: float32 of any shape, contiguous.
        threshold: 0 or more.
        log: take the mean logarithm too, that of `|x|` itself.

    Raises:
        KernelError: an argument is not as above.
    """
    _check(x=x)
    return _to_moments(torch.ops.taut.exceedance_moments.default(x, threshold, log), None)


def select_above(
    residual: Tensor, threshold: float, capacity: int, *, clear: bool = True
) -> tuple[Tensor, Tensor, int]:
    """Select the entries with `|residual| > threshold`, up to `capacity` of them, and set these to 0.

    NaN counts as above. Where there are more than `capacity`, the first are taken and the rest stay in the residual.

    Args:
        residual: float32 of any shape, contiguous, changed in place.
        threshold: 0 or more.
        capacity: most entries to take, 0 or more.
        clear: whether to set them to 0.

    Returns:
        Indices into the flattened tensor, int32, ascending; values, float32; and how many entries are above the
        threshold, which is more than were taken where it exceeds `capacity`.

    Raises:
        KernelError: an argument is not as above; nothing is changed then.
    """
    _check(residual=residual)
    _check_count("capacity", capacity, None)
    indices, values, count = torch.ops.taut.select_above.default(residual, threshold, capacity, clear)
    return indices, values, int(count)


def _check(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        check_plain(name, tensor)
        check_inference("selection", tensor, None)


def _check_count(name: str, count: int, most: int | None) -> None:
    if not isinstance(count, int) or count < 0 or (most is not None and count > most):
        limit = "an integer, 0 or more" if most is None else f"an integer from 0 to {most}, the number of elements"
        raise KernelError(f"{name}: got {count!r}", expected=limit, fix="choose another number")


def _to_moments(moments: Tensor, bins: Tensor | None) -> Moments:
    count, mean, second, mean_log, maximum, nonzero = moments.tolist()
    return Moments(int(count), mean, second, mean_log, maximum, int(nonzero), bins)


def _new_entries(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(count, dtype=torch.int32), x.new_empty(count)


def _run_top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    indices, values = _new_entries(x, k)
    _native.top_k(None, x, indices, values, False, torch.get_num_threads())
    return indices, values


def _run_accumulate_and_select_top_k(gradient: Tensor, residual: Tensor, k: int) -> tuple[Tensor, Tensor]:
    indices, values = _new_entries(residual, k)
    _native.top_k(gradient, residual, indices, values, True, torch.get_num_threads())
    return indices, values


def _run_accumulate_moments(gradient: Tensor, residual: Tensor, log: bool, histogram: bool) -> tuple[Tensor, Tensor]:
    bins = residual.new_empty(MAGNITUDE_BINS if histogram else 0, dtype=torch.int32)
    moments = _native.accumulate_moments(gradient, residual, log, bins if histogram else None, torch.get_num_threads())
    return torch.tensor(moments, dtype=torch.float64), bins


def _run_exceedance_moments(x: Tensor, threshold: float, log: bool) -> Tensor:
    return torch.tensor(_native.exceedance_moments(x, threshold, log, torch.get_num_threads()), dtype=torch.float64)


def _run_select_above(residual: Tensor, threshold: float, capacity: int, clear: bool) -> tuple[Tensor, Tensor, Tensor]:
    capacity = min(capacity, residual.numel())
    indices, values = _new_entries(residual, capacity)
    count = _native.select_above(residual, threshold, indices, values, clear, torch.get_num_threads())
    taken = min(count, capacity)
    return indices[:taken], values[:taken], torch.tensor(count)


def _describe_entries(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return _new_entries(x, k)


def _describe_accumulated(gradient: Tensor, residual: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return _new_entries(residual, k)


def _describe_moments(gradient: Tensor, residual: Tensor, log: bool, histogram: bool) -> tuple[Tensor, Tensor]:
    bins = residual.new_empty(MAGNITUDE_BINS if histogram else 0, dtype=torch.int32)
    return residual.new_empty(6, dtype=torch.float64), bins


def _describe_exceedance(x: Tensor, threshold: float, log: bool) -> Tensor:
    return x.new_empty(6, dtype=torch.float64)


def _describe_above(residual: Tensor, threshold: float, capacity: int, clear: bool) -> tuple[Tensor, Tensor, Tensor]:
    taken = torch.library.get_ctx().new_dynamic_size()
    return *_new_entries(residual, taken), residual.new_empty((), dtype=torch.int64)


for _name, _run, _describe in (
    ("top_k", _run_top_k, _describe_entries),
    ("accumulate_and_select_top_k", _run_accumulate_and_select_top_k, _describe_accumulated),
    ("accumulate_moments", _run_accumulate_moments, _describe_moments),
    ("exceedance_moments", _run_exceedance_moments, _describe_exceedance),
    ("select_above", _run_select_above, _describe_above),
):
    _library.impl(_name, _run, "CPU")
    torch.library.register_fake(f"taut::{_name}", _describe, lib=_library)
