"""The Triton kernels behind `taut.kernels._triton_selection`; imports triton.

Selection is two passes: each block counts its entries, then writes them behind those of the blocks before it, so that
indices ascend and the choice among ties does not depend on the order in which blocks run.
"""

# Triton's kernels only look like Python; its types do not describe them.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _magnitudes(x, place, size):
    """Bits without the sign; -1 outside."""
    bits = tl.load(x + place, mask=place < size, other=0.0).to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return tl.where(place < size, bits, -1)


@triton.jit
def _count_bins(x, bin_, bins, size, LOW: tl.constexpr, BLOCK: tl.constexpr):
    """Counts the top 16 bits of magnitudes, or the lower 15 of those in one bin."""
    bits = _magnitudes(x, tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), size)
    if LOW:
        counted = (bits >> 15) == tl.load(bin_).to(tl.int32)
        tl.atomic_add(bins + (bits & 0x7FFF), 1, mask=counted)
    else:
        tl.atomic_add(bins + (bits >> 15), 1, mask=bits >= 0)


@triton.jit
def _count_entries(x, cut, above, equal, size, BLOCK: tl.constexpr):
    """How many magnitudes of each block are above the cut, and how many equal it."""
    block = tl.program_id(0)
    bits = _magnitudes(x, block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK), size)
    bound = tl.load(cut)
    tl.store(above + block, tl.sum((bits > bound).to(tl.int32), axis=0))
    tl.store(equal + block, tl.sum((bits == bound).to(tl.int32), axis=0))


@triton.jit
def _write_entries(
    x, cut, ties, starts, equal_before, indices, values, capacity, size, CLEAR: tl.constexpr, BLOCK: tl.constexpr
):
    """Writes the entries above the cut and the first `ties` that equal it."""
    block = tl.program_id(0)
    place = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    bits = _magnitudes(x, place, size)
    bound = tl.load(cut)
    equal = bits == bound
    rank = tl.load(equal_before + block) + tl.cumsum(equal.to(tl.int32), axis=0)
    chosen = (bits > bound) | (equal & (rank <= tl.load(ties)))
    at = tl.load(starts + block) + tl.cumsum(chosen.to(tl.int32), axis=0) - 1
    written = chosen & (at < capacity)
    tl.store(indices + at, place.to(tl.int32), mask=written)
    tl.store(values + at, tl.load(x + place, mask=written, other=0.0), mask=written)
    if CLEAR:
        tl.store(x + place, 0.0, mask=written)


def interpreting() -> bool:
    """Whether triton runs its kernels in Python on the CPU (TRITON_INTERPRET=1 when this module was imported)."""
    return not isinstance(_count_entries, triton.runtime.jit.JITFunction)


def histogram(x: Tensor, bin_: Tensor | None = None) -> Tensor:
    """Counts of the top 16 bits of the magnitudes of x (N,), or of the lower 15 in one bin; int32."""
    low = bin_ is not None
    bins = torch.zeros(1 << 15 if low else 1 << 16, dtype=torch.int32, device=x.device)
    grid = (triton.cdiv(x.numel(), _BLOCK),)
    _count_bins[grid](x, bin_ if low else bins, bins, x.numel(), LOW=low, BLOCK=_BLOCK)
    return bins


def select(x: Tensor, cut: Tensor, ties: Tensor, capacity: int, *, clear: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Indices and values (capacity,) of the entries of x (N,) above the cut, with the first ties, and their number."""
    indices = torch.empty(capacity, dtype=torch.int32, device=x.device)
    values = torch.empty(capacity, dtype=torch.float32, device=x.device)
    blocks = triton.cdiv(x.numel(), _BLOCK)
    above, equal = (torch.empty(blocks, dtype=torch.int32, device=x.device) for _ in range(2))
    if blocks == 0:
        return indices, values, above.sum()
    _count_entries[(blocks,)](x, cut, above, equal, x.numel(), BLOCK=_BLOCK)
    before = equal.cumsum(0) - equal
    chosen = above + torch.minimum((ties - before).clamp(min=0), equal)
    starts = chosen.cumsum(0) - chosen
    _write_entries[(blocks,)](
        x,
        cut,
        ties,
        starts.to(torch.int32),
        before.to(torch.int32),
        indices,
        values,
        capacity,
        x.numel(),
        CLEAR=clear,
        BLOCK=_BLOCK,
    )
    return indices, values, chosen.sum()
