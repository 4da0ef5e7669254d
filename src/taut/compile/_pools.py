"""Pooling over pixels whose channels lie next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taut.codegen import (
    Expression,
    Operand,
    Recipe,
    Window,
    average_pool_recipe,
    global_average_recipe,
    max_pool_recipe,
)
from taut.compile._anchor import Anchor
from taut.compile._dims import plain
from taut.compile._kernel_operands import operand, pixels_last
from taut.compile._views import Buffer, View, contiguous
from taut.graph import Argument, Graph, Node, TensorType

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering

_DEFAULTS: dict[str, dict[str, Argument]] = {
    "max_pool2d": {"kernel_size": None, "stride": (), "padding": 0, "dilation": 1, "ceil_mode": False},
    "avg_pool2d": {
        "kernel_size": None,
        "stride": (),
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    },
    "adaptive_avg_pool2d": {"output_size": None},
    "mean": {"dim": None, "keepdim": False, "dtype": None},
}


def is_pool(graph: Graph, node: Node) -> bool:
    """max_pool2d, avg_pool2d, and the mean of whole images, with a fixed number of channels."""
    kind = graph.value_type(node.inputs[0])
    if not isinstance(kind, TensorType) or len(kind.shape) != 4 or not isinstance(kind.shape[1], int):
        return False
    given = _arguments(node)
    if node.op.startswith("aten.mean"):
        axes = given["dim"]
        return isinstance(axes, tuple) and sorted(axis % 4 for axis in axes if isinstance(axis, int)) == [2, 3]
    if node.op.startswith("aten.adaptive"):
        return given["output_size"] in ((1, 1), (1,), 1)
    return given["ceil_mode"] is False and given.get("divisor_override") is None


def pool_anchor(lowering: Lowering, node: Node) -> Anchor:
    """Pooling of x (N, C, H, W), whose result lies in memory as (N, H, W, C)."""
    given = _arguments(node)
    x = pixels_last(lowering, lowering.tensor(node.args[0]))
    keeps = not node.op.startswith("aten.mean") or given["keepdim"] is True
    sizes = [plain(size) for size in node.type.shape]
    shape = (sizes[0], sizes[2], sizes[3], sizes[1]) if keeps else (sizes[0], 1, 1, sizes[1])

    def view(buffer: Buffer) -> View:
        whole = contiguous(buffer, shape).permute((0, 3, 1, 2))
        return whole if keeps else whole.drop((2, 3))

    def recipe(others: Sequence[Operand], output: Operand, expression: Expression) -> Recipe:
        del output  # the template derives it
        if "kernel_size" not in given:
            return global_average_recipe(operand(x), extras=others, expression=expression)
        kernel = _pair(given["kernel_size"])
        stride = kernel if given["stride"] in ((), None) else _pair(given["stride"])
        up, left = _pair(given["padding"])
        padding = (up, up, left, left)
        window = Window(kernel, stride, padding, _pair(given.get("dilation", 1)))
        if "count_include_pad" not in given:
            return max_pool_recipe(operand(x), window, extras=others, expression=expression)
        counted = padding if given["count_include_pad"] else (0, 0, 0, 0)
        return average_pool_recipe(operand(x), window, counted=counted, extras=others, expression=expression)

    return Anchor((x,), (), shape, view, recipe)


def _arguments(node: Node) -> dict[str, Argument]:
    """The arguments after the first, by name."""
    defaults = _DEFAULTS[node.op.split(".")[1]]
    return {
        name: node.args[1 + position] if len(node.args) > 1 + position else node.keyword(name, default)
        for position, (name, default) in enumerate(defaults.items())
    }


def _pair(value: Argument) -> tuple[int, int]:
    numbers = value if isinstance(value, tuple) else (value,)
    found = [number for number in numbers if isinstance(number, int)]
    return (found[0], found[0]) if len(found) == 1 else (found[0], found[1])
