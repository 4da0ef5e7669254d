"""Which steps of a block must come before which: those that touch the same memory, where one of them writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from taut.compile._block import Block, CopyStep, KernelStep, Step, buffers_of
from taut.compile._views import Buffer, View

Access = tuple[View | None, bool]
"""A view of a buffer, None for all of it, and whether it is written."""


def dependences(block: Block) -> list[set[int]]:
    """For each step the earlier steps that it cannot pass: reads after writes, writes after reads and writes.

    Steps that are no kernels or copies stay where they are: nothing passes them.
    """
    found: list[set[int]] = []
    seen: dict[Buffer, list[tuple[int, Access]]] = {}
    fence = -1
    for position, step in enumerate(block.steps):
        fixed = not isinstance(step, KernelStep | CopyStep)
        before = set(range(fence, position)) - {-1} if fixed else {fence} - {-1}
        for buffer, access in accesses(step):
            others = seen.setdefault(buffer, [])
            before |= {other for other, known in others if other != position and _conflict(known, access)}
            others.append((position, access))
        found.append(before)
        if fixed:
            fence = position
    return found


def accesses(step: Step) -> Iterator[tuple[Buffer, Access]]:
    """What a step touches."""
    if isinstance(step, KernelStep):
        yield from ((view.buffer, (view, False)) for view in step.inputs)
        yield from ((view.buffer, (view, True)) for view in step.outputs)
    elif isinstance(step, CopyStep):
        yield step.source.buffer, (step.source, False)
        yield step.target.buffer, (step.target, True)
    else:
        for written, buffers in enumerate(buffers_of(step)):
            yield from ((buffer, (None, bool(written))) for buffer in buffers)


def _conflict(a: Access, b: Access) -> bool:
    if not (a[1] or b[1]):
        return False
    return a[0] is None or b[0] is None or not disjoint(a[0], b[0])


def disjoint(a: View, b: View) -> bool:
    """Whether two views of one buffer certainly share no element; sizes that are not static count as sharing."""
    first, second = _numbers(a), _numbers(b)
    if first is None or second is None:
        return False
    # Pixels may be one dimension of one view and two of the other.
    return (
        _apart(*first, *second)
        or _apart(first[0], _joined(first[1]), second[0], _joined(second[1]))
        or any(_in_other_columns(*first, *second, width) for _, width in (*first[1], *second[1]))
    )


def _in_other_columns(
    offset_a: int, box_a: list[tuple[int, int]], offset_b: int, box_b: list[tuple[int, int]], width: int
) -> bool:
    """Whether views keep to different columns of rows that are `width` elements wide."""
    begin_a, begin_b = offset_a % width, offset_b % width
    end_a, end_b = (
        begin + _reach([(size, stride) for size, stride in box if stride % width])
        for begin, box in ((begin_a, box_a), (begin_b, box_b))
    )
    return max(end_a, end_b) < width and (end_a < begin_b or end_b < begin_a)


def _apart(offset_a: int, box_a: list[tuple[int, int]], offset_b: int, box_b: list[tuple[int, int]]) -> bool:
    if 0 in (size for size, _ in (*box_a, *box_b)):
        return True
    if offset_a > offset_b:
        offset_a, offset_b, box_a, box_b = offset_b, offset_a, box_b, box_a
    if offset_a + _reach(box_a) < offset_b:
        return True
    strides = sorted({stride for _, stride in (*box_a, *box_b)}, reverse=True)
    extents_a, extents_b = _extents(box_a, strides), _extents(box_b, strides)
    if extents_a is None or extents_b is None:
        return False
    # Coordinates along the strides, which name each element once as long as none reaches into the next larger stride.
    distance = offset_b - offset_a
    apart = False
    below = 0
    starts = []
    for stride in strides:
        starts.append(distance // stride)
        distance %= stride
    if distance:
        return False
    for stride, start, size_a, size_b in reversed(list(zip(strides, starts, extents_a, extents_b, strict=True))):
        if below >= stride:
            return False
        below += stride * max(size_a - 1, start + size_b - 1)
        apart = apart or start >= size_a
    return apart


def shared_elements(a: View, b: View) -> int:
    """About how many elements two views of one buffer share; 0 where sizes are not static."""
    first, second = _numbers(a), _numbers(b)
    if first is None or second is None or disjoint(a, b):
        return 0
    starts, ends, counts = [], [], []
    for offset, box in (first, second):
        starts.append(offset)
        ends.append(offset + _reach(box) + 1)
        counts.append(math.prod(size for size, _ in box))
    common = min(ends) - max(starts)
    return min(count * common // (end - start) for count, start, end in zip(counts, starts, ends, strict=True))


def _numbers(view: View) -> tuple[int, list[tuple[int, int]]] | None:
    """Offset and dimensions (size, stride) as integers."""
    if not isinstance(view.offset, int):
        return None
    box = []
    for size, stride in zip(view.sizes, view.strides, strict=True):
        if not isinstance(size, int) or not isinstance(stride, int) or stride < 0:
            return None
        if stride != 0 and size != 1:
            box.append((size, stride))
    return view.offset, box


def _joined(box: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Dimensions that follow each other in memory as one."""
    made: list[tuple[int, int]] = []
    for size, stride in box:
        if made and made[-1][1] == size * stride:
            made[-1] = made[-1][0] * size, stride
        else:
            made.append((size, stride))
    return made


def _reach(box: Sequence[tuple[int, int]]) -> int:
    return sum((size - 1) * stride for size, stride in box)


def _extents(box: Sequence[tuple[int, int]], strides: Sequence[int]) -> list[int] | None:
    """The size along each stride; None where two dimensions have the same."""
    sizes = {stride: size for size, stride in box}
    return [sizes.get(stride, 1) for stride in strides] if len(sizes) == len(box) else None
