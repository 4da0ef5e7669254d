"""Views: the same elements under other shapes and orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import END, Operand, Writer


@converts("reshape", "view")
def _reshape(w: Writer, x: Value, shape: Sequence[Any]) -> str:
    return reshape(w, x, shape)


def reshape(w: Writer, x: Operand, shape: Sequence[Any]) -> str:
    """The elements under another shape; one size may be -1."""
    # A size of zero means zero here, and not "as before", unless one is left to be found.
    return w.emit("Reshape", x, w.sizes(shape), allowzero=None if -1 in shape else 1)


@converts("reshape_as", "view_as")
def _reshape_as(w: Writer, x: Value, other: Value) -> str:
    return w.emit("Reshape", x, w.shape_of(other), allowzero=1)


@converts("permute")
def _permute(w: Writer, x: Value, order: Sequence[int]) -> str:
    return w.emit("Transpose", x, perm=[x.axis(axis) for axis in order])


@converts("transpose.int")
def _transpose(w: Writer, x: Value, first: int, second: int) -> str:
    return transpose(w, x, first, second)


@converts("t")
def _reverse(w: Writer, x: Value) -> str:
    return w.emit("Transpose", x, perm=list(reversed(range(x.rank))))


def transpose(w: Writer, x: Value, first: int = -2, second: int = -1) -> str:
    """Two dimensions exchanged."""
    if x.rank == 0:
        return w.name(x)
    order = list(range(x.rank))
    order[first], order[second] = order[second], order[first]
    return w.emit("Transpose", x, perm=order)


@converts("movedim.int", "movedim.intlist")
def _move(w: Writer, x: Value, source: Any, destination: Any) -> str:
    sources = [x.axis(axis) for axis in ([source] if isinstance(source, int) else source)]
    places = [x.axis(axis) for axis in ([destination] if isinstance(destination, int) else destination)]
    order = [axis for axis in range(x.rank) if axis not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return w.emit("Transpose", x, perm=order)


@converts("unsqueeze")
def _unsqueeze(w: Writer, x: Value, dimension: int) -> str:
    return w.emit("Unsqueeze", x, w.integers([dimension % (x.rank + 1)]))


@converts("squeeze", "squeeze.dim", "squeeze.dims")
def _squeeze(w: Writer, x: Value, dimensions: Any = None) -> str:
    chosen = range(x.rank) if dimensions is None else [dimensions] if isinstance(dimensions, int) else dimensions
    axes = [x.axis(axis) for axis in chosen if x.rank and x.shape[axis] == 1]
    return w.emit("Squeeze", x, w.integers(axes)) if axes else w.name(x)


@converts("flatten.using_ints")
def _flatten(w: Writer, x: Value, start: int, end: int) -> str:
    first, last = x.axis(start), x.axis(end)
    if x.rank == 0:
        return w.emit("Reshape", x, w.integers([1]))
    middle = w.integers([-1])
    before = [w.size(x, axis) for axis in range(first)]
    after = [w.size(x, axis) for axis in range(last + 1, x.rank)]
    return w.emit("Reshape", x, _joined(w, [*before, middle, *after]))


@converts("unflatten.int")
def _unflatten(w: Writer, x: Value, dimension: int, sizes: Sequence[Any]) -> str:
    axis = x.axis(dimension)
    before = [w.size(x, index) for index in range(axis)]
    after = [w.size(x, index) for index in range(axis + 1, x.rank)]
    return w.emit("Reshape", x, _joined(w, [*before, w.sizes(sizes), *after]))


def _joined(w: Writer, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else w.emit("Concat", *parts, axis=0)


@converts("expand", "expand_as")
def _expand(w: Writer, x: Value, sizes: Any, implicit: bool = False) -> str:
    if isinstance(sizes, Value):
        return w.emit("Expand", x, w.emit("Shape", sizes))
    return w.emit("Expand", x, w.sizes([1 if size == -1 else size for size in sizes]))


@converts("repeat")
def _repeat(w: Writer, x: Value, repeats: Sequence[Any]) -> str:
    source = w.name(x)
    if len(repeats) > x.rank:
        source = w.emit("Unsqueeze", source, w.integers(range(len(repeats) - x.rank)))
    return w.emit("Tile", source, w.sizes(repeats))


@converts("cat")
def _concatenate(w: Writer, tensors: Sequence[Value], dimension: int) -> str:
    kept = [item for item in tensors if item.shape != (0,)]  # ATen leaves out what is empty and has one dimension
    return w.emit("Concat", *(w.cast(item, w.dtype()) for item in kept), axis=kept[0].axis(dimension))


@converts("stack")
def _stack(w: Writer, tensors: Sequence[Value], dimension: int) -> str:
    axis = w.integers([dimension % (tensors[0].rank + 1)])
    parts = [w.emit("Unsqueeze", w.cast(item, w.dtype()), axis) for item in tensors]
    return w.emit("Concat", *parts, axis=dimension % (tensors[0].rank + 1))


@converts("slice.Tensor")
def _slice(w: Writer, x: Value, dimension: int, start: Any, end: Any, step: int) -> str:
    first, last = 0 if start is None else start, END if end is None else end
    return _sliced(w, x, x.axis(dimension), first, last, step)


def _sliced(w: Writer, x: Operand, axis: int, start: Any, end: Any, step: int = 1) -> str:
    return w.emit("Slice", x, w.sizes([start]), w.sizes([end]), w.integers([axis]), w.integers([step]))


@converts("narrow")
def _narrow(w: Writer, x: Value, dimension: int, start: Any, length: Any) -> str:
    end = w.emit("Add", w.sizes([start]), w.sizes([length]))
    return w.emit("Slice", x, w.sizes([start]), end, w.integers([x.axis(dimension)]))


@converts("select.int")
def _select(w: Writer, x: Value, dimension: int, index: Any) -> str:
    return w.emit("Gather", x, w.scalar(index, torch.int64), axis=x.axis(dimension))


@converts("unbind.int")
def _unbind(w: Writer, x: Value, dimension: int) -> tuple[str, ...]:
    axis = x.axis(dimension)
    return tuple(w.emit("Gather", x, w.number(index, torch.int64), axis=axis) for index in range(_results(w)))


def _results(w: Writer) -> int:
    return len(w.node.outputs)


@converts("split.Tensor", "split_with_sizes", "chunk")
def _split(w: Writer, x: Value, sizes: Any, dimension: int) -> tuple[str, ...]:
    axis = x.axis(dimension)
    parts = [part for kind in w.node.outputs if isinstance(part := Value("", kind).shape[axis], int)]
    if len(parts) < len(w.node.outputs):
        unsupported(w.node, "the sizes of the parts depend on the input", fix="split along a dimension of fixed size")
    return w.emit_several("Split", (x, w.integers(parts)), len(parts), axis=axis)


@converts("flip")
def _flip(w: Writer, x: Value, dimensions: Sequence[int]) -> str:
    axes = [x.axis(axis) for axis in dimensions]
    backwards = w.integers([-1] * len(axes))
    return w.emit("Slice", x, backwards, w.integers([-END] * len(axes)), w.integers(axes), backwards)


@converts("roll")
def _roll(w: Writer, x: Value, shifts: Sequence[int], dimensions: Sequence[int]) -> str:
    if not dimensions:
        unsupported(w.node, "a roll of all elements in one row has no counterpart", fix="give the dimensions to roll")
    result = w.name(x)
    for shift, dimension in zip(shifts, dimensions, strict=True):
        axis, size = x.axis(dimension), x.shape[dimension]
        if not isinstance(size, int):
            unsupported(w.node, "it rolls a dimension whose size depends on the input")
        cut = -shift % size if size else 0
        result = w.emit("Concat", _sliced(w, result, axis, cut, END), _sliced(w, result, axis, 0, cut), axis=axis)
    return result


@converts("pad", "constant_pad_nd")
def _pad(w: Writer, x: Value, pads: Sequence[Any], *rest: Any) -> str:
    mode, value = (rest[0], rest[1]) if w.node.op == "aten.pad.default" else ("constant", rest[0])
    name = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    count = len(pads) // 2
    axes = [x.rank - 1 - index for index in range(count)]
    sizes = w.sizes([*pads[0::2], *pads[1::2]])
    fill = w.scalar(0 if value is None else value, x.dtype) if name == "constant" else None
    return w.emit("Pad", x, sizes, fill, w.integers(axes), mode=name)


@converts("pixel_shuffle")
def _pixel_shuffle(w: Writer, x: Value, factor: int) -> str:
    if x.rank != 4:
        unsupported(w.node, "ONNX shuffles pixels of four-dimensional tensors only")
    return w.emit("DepthToSpace", x, blocksize=factor, mode="CRD")


@converts("pixel_unshuffle")
def _pixel_unshuffle(w: Writer, x: Value, factor: int) -> str:
    channels, height, width = x.shape[-3:]
    if x.rank != 4 or not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
        unsupported(w.node, "only four-dimensional tensors with a fixed image size can be unshuffled")
    split = [-1, channels, height // factor, factor, width // factor, factor]
    moved = w.emit("Transpose", w.emit("Reshape", x, w.integers(split)), perm=[0, 1, 3, 5, 2, 4])
    return w.emit("Reshape", moved, w.integers([-1, channels * factor**2, height // factor, width // factor]))


@converts("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
def _filled(w: Writer, first: Any, *rest: Any) -> str:
    name = w.node.op.split(".")[1]
    value = 1 if "ones" in name else 0
    if "full" in name:
        value = rest[0] if name in ("full", "full_like") else rest[1]
    if isinstance(first, Value) and name.endswith("like"):
        shape = w.shape_of(first)
    else:
        sizes: Any = rest[0] if name.startswith("new_") else first
        shape = w.sizes(sizes)
    return w.emit("Expand", w.scalar(value, w.dtype()), shape)


@converts("arange", "arange.start", "arange.start_step")
def _arange(w: Writer, *arguments: Any) -> str:
    overload = w.node.op.split(".")[2]
    start, end, step = {
        "default": (0, arguments[0], 1),
        "start": (*arguments[:2], 1),
        "start_step": arguments[:3],
    }[overload]
    return w.emit("Range", *(w.scalar(item, w.dtype()) for item in (start, end, step)))


@converts("tril", "triu")
def _triangle(w: Writer, x: Value, diagonal: int) -> str:
    upper = int("triu" in w.node.op)
    return w.emit("Trilu", x, w.number(diagonal, torch.int64), upper=upper)
