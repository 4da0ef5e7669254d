"""Python bindings that reach the same kernels as a dispatcher call, 0.3 to 1 microsecond sooner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

SHORTCUTS: dict[str, Callable[..., Any]] = {
    "aten.sym_size.int": torch.Tensor.size,
    "aten.item.default": torch.Tensor.item,
    "aten.sym_numel.default": torch.Tensor.numel,
    "aten.add.Tensor": torch.add,
    "aten.sub.Tensor": torch.sub,
    "aten.mul.Tensor": torch.mul,
    "aten.div.Tensor": torch.div,
    "aten.relu.default": torch.relu,
    "aten.sigmoid.default": torch.sigmoid,
    "aten.tanh.default": torch.tanh,
    "aten.reshape.default": torch.reshape,
    "aten.transpose.int": torch.transpose,
    "aten.permute.default": torch.permute,
    "aten.select.int": torch.select,
    "aten.unsqueeze.default": torch.unsqueeze,
    "aten.squeeze.dim": torch.squeeze,
    "aten.cat.default": torch.cat,
    "aten.matmul.default": torch.matmul,
    "aten.embedding.default": torch.embedding,
    "aten.layer_norm.default": torch.layer_norm,
    "aten.batch_norm.default": torch.batch_norm,
    "aten.conv2d.default": torch.conv2d,
    "aten.conv2d.padding": torch.conv2d,
    "aten.linear.default": functional.linear,
    "aten.gelu.default": functional.gelu,
    "aten.scaled_dot_product_attention.default": functional.scaled_dot_product_attention,
}
"""By operator; each takes the operator's own positional and keyword arguments."""
