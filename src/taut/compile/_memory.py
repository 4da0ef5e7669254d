"""The memory plan of a function: which arena buffers share memory, and where each lies.

Offsets are expressions over the symbols, right for all of their values, and multiples of 64 bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import sympy

from taut.compile._block import Block, CallStep, KernelStep, buffers_of
from taut.compile._dims import plain, quotient, same
from taut.compile._views import Buffer, View
from taut.graph import Dim, evaluate

ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Where arena buffers lie.

    Attributes:
        offsets: bytes from the start of the arena, by buffer.
        total: bytes of the arena.
        live: first and last step of each buffer that owns memory; an output that takes over an input's counts as it.
    """

    offsets: Mapping[Buffer, Dim]
    total: Dim
    live: Mapping[Buffer, tuple[int, int]]

    def lower_bound(self, sizes: Mapping[str, int]) -> int:
        """The largest number of bytes that are live at one step: no plan without moves can do with less."""
        last = max((end for _, end in self.live.values()), default=-1)
        return max(
            (
                sum(evaluate(buffer_bytes(buffer), sizes) for buffer, (a, b) in self.live.items() if a <= step <= b)
                for step in range(last + 1)
            ),
            default=0,
        )


def buffer_bytes(buffer: Buffer) -> Dim:
    """Bytes that a buffer takes in the arena."""
    return aligned(plain(buffer.elements * buffer.dtype.itemsize))


def aligned(size: Dim) -> Dim:
    """The size rounded up to the alignment."""
    if isinstance(size, int):
        return -(-size // ALIGNMENT) * ALIGNMENT
    factor, _ = size.as_content_primitive()
    if factor.is_Integer and int(factor) % ALIGNMENT == 0:
        return size
    return plain(sympy.ceiling(size / ALIGNMENT) * ALIGNMENT)


def plan_memory(block: Block, hint: Mapping[str, int], before: Sequence[int] | None = None) -> MemoryPlan:
    """Give arena buffers their places.

    An output takes over the memory of an input that the step is the last to read, where the kernel allows that.

    Args:
        block: the code.
        hint: typical values of the symbols, by which sizes are compared; the plan is right for all values.
        before: for each step those that are done when it starts, as bits of a number; by default all in front of it.
    """
    if before is None:
        before = [(1 << position) - 1 for position in range(len(block.steps))]
    live = liveness(block)
    uses = _uses(block, live)
    heirs = _heirs(block, live, uses, before)
    spans: dict[Buffer, tuple[int, int]] = {}
    for buffer, (start, end) in live.items():
        owner = heirs.get(buffer, buffer)
        known = spans.get(owner, (start, end))
        spans[owner] = (min(known[0], start), max(known[1], end))
        if owner is not buffer:
            uses[owner] |= uses[buffer]
    lives = _Lives(uses, (*before, (1 << len(block.steps)) - 1))
    sizes = {buffer: buffer_bytes(buffer) for buffer in spans}
    unit = _common_unit(list(sizes.values()))
    offsets, total = _packed(spans, lives, sizes, unit) if unit is not None else _in_regions(spans, lives, sizes, hint)
    for buffer, owner in heirs.items():
        offsets[buffer] = offsets[owner]
    return MemoryPlan(offsets, total, spans)


def _common_unit(sizes: Sequence[Dim]) -> Dim | None:
    """What all sizes are whole multiples of, up to numbers; None where there is no such expression."""
    symbolic = [size for size in sizes if not isinstance(size, int)]
    if not symbolic:
        return 1
    factor, unit = symbolic[0].as_content_primitive()
    del factor
    return unit if all(isinstance(quotient(size, unit), int) for size in sizes) else None


class _Lives:
    """Which buffers are never live together.

    Args:
        uses: the steps that touch each buffer, as bits of a number; the bit after the last step stands for the caller.
        before: for each step, and for the caller, the steps that are done when it starts.
    """

    def __init__(self, uses: Mapping[Buffer, int], before: Sequence[int]) -> None:
        self._uses = uses
        self._before: dict[Buffer, int] = {}
        for buffer, steps in uses.items():
            common = -1
            for step in _bits(steps):
                common &= before[step]
            self._before[buffer] = common

    def apart(self, a: Buffer, b: Buffer) -> bool:
        """Whether every use of one comes before every use of the other, in the memory of one device."""
        return a.device == b.device and not (self._uses[a] & ~self._before[b] and self._uses[b] & ~self._before[a])


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def _uses(block: Block, live: Mapping[Buffer, tuple[int, int]]) -> dict[Buffer, int]:
    uses = {buffer: 1 << end for buffer, (_, end) in live.items()}
    for position, step in enumerate(block.steps):
        for buffer in [buffer for group in buffers_of(step) for buffer in group]:
            if buffer in uses:
                uses[buffer] |= 1 << position
    return uses


def _packed(
    spans: Mapping[Buffer, tuple[int, int]], lives: _Lives, sizes: Mapping[Buffer, Dim], unit: Dim
) -> tuple[dict[Buffer, Dim], Dim]:
    """Offsets where sizes are numbers times one unit: largest first, each as low as what lives beside it allows."""
    numbers = {buffer: quotient(size, unit) for buffer, size in sizes.items()}
    placed: dict[Buffer, tuple[int, int]] = {}
    for buffer in sorted(spans, key=lambda item: (-int(numbers[item] or 0), spans[item])):
        size = int(numbers[buffer] or 0)
        beside = sorted(placed[other] for other in placed if not lives.apart(buffer, other))
        start = 0
        for begin, end in beside:
            if start + size <= begin:
                break
            start = max(start, end)
        placed[buffer] = (start, start + size)
    total = max((end for _, end in placed.values()), default=0)
    return {buffer: plain(start * unit) for buffer, (start, _) in placed.items()}, plain(total * unit)


def _in_regions(
    spans: Mapping[Buffer, tuple[int, int]], lives: _Lives, sizes: Mapping[Buffer, Dim], hint: Mapping[str, int]
) -> tuple[dict[Buffer, Dim], Dim]:
    """Offsets for any sizes: buffers that are never live together share a region, as large as the largest of them."""
    weights = {buffer: evaluate(size, hint) for buffer, size in sizes.items()}
    regions: list[list[Buffer]] = []
    for buffer in sorted(spans, key=lambda item: (-weights[item], spans[item])):
        free = [region for region in regions if all(lives.apart(buffer, other) for other in region)]
        if free:
            # Regions grow by descending size, so any fits; the smallest wastes least.
            min(free, key=lambda region: weights[region[0]]).append(buffer)
        else:
            regions.append([buffer])
    offsets: dict[Buffer, Dim] = {}
    total: Dim = 0
    for region in regions:
        offsets |= dict.fromkeys(region, total)
        total = plain(total + _largest([sizes[buffer] for buffer in region]))
    return offsets, total


def _heirs(
    block: Block, live: Mapping[Buffer, tuple[int, int]], uses: Mapping[Buffer, int], before: Sequence[int]
) -> dict[Buffer, Buffer]:
    """For each output that is written over an input the first owner of that memory."""
    heirs: dict[Buffer, Buffer] = {}
    for position, step in enumerate(block.steps):
        if not isinstance(step, KernelStep) or len(step.outputs) != 1:
            continue
        output = step.outputs[0]
        if output.buffer not in live or live[output.buffer][0] != position:
            continue
        for number in step.in_place:
            view = step.inputs[number]
            ends = view.buffer in live and live[view.buffer][1] == position
            ends = ends and not uses[view.buffer] & ~(before[position] | 1 << position)
            alone = [other.buffer for other in step.inputs].count(view.buffer) == 1
            if ends and alone and _same_memory(view, output):
                heirs[output.buffer] = heirs.get(view.buffer, view.buffer)
                break
    return heirs


def _same_memory(a: View, b: View) -> bool:
    return (
        a.dtype == b.dtype
        and same(a.buffer.elements, b.buffer.elements)
        and all(
            same(x, y) for x, y in zip((*a.sizes, *a.strides, a.offset), (*b.sizes, *b.strides, b.offset), strict=True)
        )
    )


def liveness(block: Block) -> dict[Buffer, tuple[int, int]]:
    """The first and the last step that touch each arena buffer."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for position, step in enumerate(block.steps):
        for buffer in [buffer for group in buffers_of(step) for buffer in group]:
            first.setdefault(buffer, position)
            last[buffer] = position
    for result in block.results:
        if isinstance(result, View):
            last[result.buffer] = len(block.steps)
    for step in reversed(block.steps):
        if isinstance(step, CallStep):  # a result may be an argument handed through
            read, written = buffers_of(step)
            end = max((last[buffer] for buffer in written), default=-1)
            for buffer in read:
                last[buffer] = max(last[buffer], end)
    return {buffer: (first[buffer], last[buffer]) for buffer in first if buffer.kind == "arena"}


def _largest(sizes: Sequence[Dim]) -> Dim:
    distinct = list(dict.fromkeys(sizes))
    return distinct[0] if len(distinct) == 1 else plain(sympy.Max(*distinct))
