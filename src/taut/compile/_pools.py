"""Pooling over pixels whose channels lie next to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from taut.codegen import Window, pool
from taut.compile._block import KernelStep
from taut.compile._dims import plain, product, same
from taut.compile._kernel_operands import operand
from taut.compile._views import View, contiguous
from taut.graph import Argument, Node

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


def lower_pool(lowering: Lowering, node: Node) -> View | None:
    """max_pool2d, avg_pool2d and adaptive_avg_pool2d to one pixel."""
    name = node.op.split(".")[1]
    x = lowering.tensor(node.args[0])
    if x.rank != 4 or x.dtype != torch.float32:
        return None
    window, counts = _window(node, name, x)
    if window is None:
        return None
    nhwc = x.permute((0, 2, 3, 1))
    if not same(nhwc.strides[3], 1) and not same(nhwc.sizes[3], 1):
        nhwc = lowering.copy(x, (0, 2, 3, 1)).permute((0, 2, 3, 1))
    sizes = [plain(size) for size in node.type.shape]
    out = (sizes[0], sizes[2], sizes[3], sizes[1])
    target = contiguous(lowering.new(x.dtype, product(out)), out)
    recipe = pool(operand(nhwc), window, kind="max" if name == "max_pool2d" else "average", count_padding=counts)
    lowering.emit(KernelStep(recipe, (nhwc,), (target,), lowering.label, (node.id,)))
    return target.permute((0, 3, 1, 2))


def _window(node: Node, name: str, x: View) -> tuple[Window | None, bool]:
    """The window, and whether padding counts in an average."""
    if name == "adaptive_avg_pool2d":
        height, width = x.sizes[2:]
        if node.args[1] not in ((1, 1), 1) or not isinstance(height, int) or not isinstance(width, int):
            return None, False
        return Window((height, width), (height, width)), True
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    defaults: tuple[Argument, ...] = (None, (), 0, 1, False)
    if name == "avg_pool2d":
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        defaults = (None, (), 0, False, True, None)
    given = {
        key: node.args[1 + position] if len(node.args) > 1 + position else node.keyword(key, default)
        for position, (key, default) in enumerate(zip(names, defaults, strict=True))
    }
    if given["ceil_mode"] is not False or given.get("divisor_override") is not None:
        return None, False
    kernel = _pair(given["kernel_size"])
    stride = kernel if given["stride"] in ((), None) else _pair(given["stride"])
    up, left = _pair(given["padding"])
    return Window(kernel, stride, (up, up, left, left), _pair(given.get("dilation", 1))), bool(
        given.get("count_include_pad", True)
    )


def _pair(value: Argument) -> tuple[int, int]:
    numbers = value if isinstance(value, tuple) else (value,)
    found = [number for number in numbers if isinstance(number, int)]
    return (found[0], found[0]) if len(found) == 1 else (found[0], found[1])
