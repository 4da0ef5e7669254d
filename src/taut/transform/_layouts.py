"""Memory orders after a pass that changes them."""

from __future__ import annotations

import dataclasses

import torch

from taut.graph import Builder, Graph, Ref, TensorType, infer_types
from taut.transform._patterns import rebuild

_CONTIGUOUS = "aten.contiguous.default"


def reorder(builder: Builder, ref: Ref, memory_format: torch.memory_format) -> Ref:
    """Append a change of memory order; ATen copies nothing where the order is right already."""
    kind = builder.value_type(ref)
    assert isinstance(kind, TensorType)
    layout = "channels_last" if memory_format is torch.channels_last else "contiguous"
    order = {"memory_format": memory_format}
    return builder.add(_CONTIGUOUS, ref, outputs=dataclasses.replace(kind, layout=layout), kwargs=order)


def settle_layouts(graph: Graph) -> Graph:
    """Record every layout as the operators make it, and give images out contiguous, as the model did."""

    def output(old: Ref, builder: Builder) -> Ref:
        new = builder.map(old)
        assert isinstance(new, Ref)
        kind = builder.value_type(new)
        last = isinstance(kind, TensorType) and kind.layout == "channels_last"
        return reorder(builder, new, torch.contiguous_format) if last else new

    return rebuild(infer_types(graph), lambda node, builder: None, output)
