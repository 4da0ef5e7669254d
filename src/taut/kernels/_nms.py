"""Non-maximum suppression: of boxes that overlap much, the one with the highest score stays."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.errors import KernelError

_library = torch.library.Library("taut", "FRAGMENT")
_library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which boxes stay, from the highest score to the lowest; equal scores in the order of the boxes.

    A box is dropped where its intersection with one that stays, over their union, is above the threshold. This form
    runs in torch and is quadratic; `taut.compile` has a kernel for it.

    Args:
        boxes: `(N, 4)` float32, each as x1, y1, x2, y2.
        scores: `(N,)` float32.
        threshold: of the overlap, 0 to 1.

    Returns:
        `(kept,)` int64, positions of the boxes.

    Raises:
        KernelError: a shape or dtype is not as above.
    """
    return torch.ops.taut.nms.default(boxes, scores, threshold)


def _require(boxes: Tensor, scores: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.float32:
        raise KernelError(f"boxes: has shape {tuple(boxes.shape)} and {boxes.dtype}", expected="(N, 4), torch.float32")
    if scores.dim() != 1 or scores.dtype != torch.float32:
        raise KernelError(f"scores: has shape {tuple(scores.shape)} and {scores.dtype}", expected="(N,), torch.float32")
    torch._check(scores.shape[0] == boxes.shape[0], lambda: f"scores: {scores.shape[0]} for {boxes.shape[0]} boxes")


def _run(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    _require(boxes, scores)
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1) * (y2 - y1)
    order = scores.sort(descending=True, stable=True).indices
    kept = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        width = (torch.minimum(x2[best], x2[order]) - torch.maximum(x1[best], x1[order])).clamp(min=0)
        height = (torch.minimum(y2[best], y2[order]) - torch.maximum(y1[best], y1[order])).clamp(min=0)
        common = width * height
        order = order[~(common / (area[best] + area[order] - common) > threshold)]
    return torch.stack(kept) if kept else order.new_empty(0)


def _describe(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    _require(boxes, scores)
    size = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(size, dtype=torch.int64)


_library.impl("nms", _run, "CompositeExplicitAutograd")
torch.library.register_fake("taut::nms", _describe, lib=_library)
