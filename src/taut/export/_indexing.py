"""Look-ups, gathers and scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Writer


@converts("embedding")
def _embedding(w: Writer, table: Value, indices: Value, *rest: object) -> str:
    return w.emit("Gather", table, indices, axis=0)


@converts("index_select")
def _index_select(w: Writer, x: Value, dimension: int, index: Value) -> str:
    return w.emit("Gather", x, index, axis=x.axis(dimension))


@converts("gather")
def _gather(w: Writer, x: Value, dimension: int, index: Value, *rest: object) -> str:
    return w.emit("GatherElements", x, index, axis=x.axis(dimension))


@converts("scatter.src", "scatter_add")
def _scatter(w: Writer, x: Value, dimension: int, index: Value, source: Value) -> str:
    reduction = "add" if "add" in w.node.op else "none"
    used = w.name(source)
    if source.shape != index.shape:  # ATen takes from the source what the indices cover
        used = w.emit("Slice", source, w.integers([0] * index.rank), w.shape_of(index))
    return w.emit("ScatterElements", x, index, used, axis=x.axis(dimension), reduction=reduction)


@converts("index.Tensor")
def _index(w: Writer, x: Value, indices: Sequence[Value | None]) -> str:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1:
        axis, index = given[0]
        if index.dtype != torch.bool:
            return w.emit("Gather", x, index, axis=axis)
        if index.rank == 1:
            return w.emit("Compress", x, index, axis=axis)
    if [axis for axis, _ in given] != list(range(len(given))) or any(index.dtype == torch.bool for _, index in given):
        unsupported(w.node, "ONNX indexes leading dimensions, or one dimension, by integers")
    shape = w.emit("Shape", _sum(w, [index for _, index in given]))
    parts = [w.emit("Unsqueeze", w.emit("Expand", index, shape), w.integers([-1])) for _, index in given]
    return w.emit("GatherND", x, w.emit("Concat", *parts, axis=-1))


def _sum(w: Writer, values: Sequence[Value]) -> str:
    """Their sum, which has the shape that they broadcast to."""
    total = w.name(values[0])
    for value in values[1:]:
        total = w.emit("Add", total, value)
    return total


@converts("nonzero")
def _nonzero(w: Writer, x: Value) -> str:
    return w.emit("Transpose", w.emit("NonZero", x), perm=[1, 0])


@converts("one_hot")
def _one_hot(w: Writer, x: Value, classes: Any) -> str:
    if not isinstance(classes, int) or classes < 0:
        unsupported(w.node, "the number of classes depends on the input", fix="give num_classes")
    return w.emit("OneHot", x, w.number(classes, torch.int64), w.integers([0, 1]))
