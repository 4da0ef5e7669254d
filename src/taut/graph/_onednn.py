"""oneDNN's fused operators, as passes emit them: what torch lacks to trace them, and their weights' reordering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from taut.graph._types import Graph, Node

CONVOLUTION = "mkldnn._convolution_pointwise.default"
CONVOLUTION_ADD = "mkldnn._convolution_pointwise.binary"
LINEAR = "mkldnn._linear_pointwise.default"
FUSED_OPERATORS = frozenset({CONVOLUTION, CONVOLUTION_ADD, LINEAR})

if torch.backends.mkldnn.is_available():

    @torch.library.register_fake("mkldnn::_convolution_pointwise.binary")
    def _describe_convolution_add(x: torch.Tensor, other: torch.Tensor, *rest: Any) -> torch.Tensor:
        return torch.empty_like(other)


def prepacked_weight(graph: Graph, node: Node) -> dict[int, torch.Tensor]:
    """The weight of a fused operator in the blocked order that its kernel would otherwise make in each call.

    Args:
        graph: the graph.
        node: any node.

    Returns:
        The reordered tensor by argument position; empty where there is nothing to reorder.
    """
    if node.op not in FUSED_OPERATORS:
        return {}
    position = 2 if node.op == CONVOLUTION_ADD else 1
    weight = graph.constant(node.args[position])
    if weight is None or weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return {}
    if node.op != LINEAR and weight.dim() not in (4, 5):
        return {}  # oneDNN's reorder knows images and volumes only
    reorder: Callable[..., torch.Tensor]
    if node.op == LINEAR:
        reorder, window = torch.ops.mkldnn._reorder_linear_weight.default, ()
    else:
        padding, stride, dilation, groups = node.args[position + 2 : position + 6]
        reorder = torch.ops.mkldnn._reorder_convolution_weight.default
        window = (_numbers(padding), _numbers(stride), _numbers(dilation), groups)
    with torch.inference_mode():
        return {position: reorder(weight, *window)}


def _numbers(argument: object) -> list[int]:
    return [item for item in argument if isinstance(item, int)] if isinstance(argument, tuple) else []
