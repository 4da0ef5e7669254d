"""Convolutions as kernels over pixels whose channels lie next to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from taut.codegen import (
    Expression,
    Operand,
    Recipe,
    Window,
    block_of,
    convolution_recipe,
    depthwise_recipe,
    pack_convolution,
    pack_depthwise,
    with_block,
)
from taut.compile._anchor import Anchor
from taut.compile._dims import plain, product, same
from taut.compile._heads import Head, make_head
from taut.compile._kernel_operands import operand, pixels_last
from taut.compile._views import Buffer, View, contiguous
from taut.graph import Argument, Dim, Graph, Node, TensorType

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering

_FEW_CHANNELS = 4
_SMALLEST_SIDE = 16


def is_convolution(graph: Graph, node: Node) -> bool:
    """A convolution over one or two dimensions with constant weights, of one group or one channel a group."""
    weight = graph.constant(node.args[1])
    bias = _bias(node)
    if weight is None or weight.dim() not in (3, 4) or (bias is not None and graph.constant(bias) is None):
        return False
    kind = graph.value_type(node.inputs[0])
    if not isinstance(kind, TensorType) or len(kind.shape) != weight.dim():
        return False
    try:
        _, groups = _window(node, weight)
    except ValueError:
        return False
    return groups == 1 or (groups == weight.shape[0] == kind.shape[1] and weight.shape[1] == 1)


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether `is_convolution` accepts the node and each channel of images is a group."""
    weight = graph.constant(node.args[1]) if node.op.startswith("aten.conv") else None
    return weight is not None and weight.dim() == 4 and _window(node, weight)[1] > 1


def convolution_parts(graph: Graph, node: Node) -> tuple[Window, int, torch.Tensor | None]:
    """The window, groups and bias of what `is_convolution` accepts."""
    weight = graph.constant(node.args[1])
    assert weight is not None
    return *_window(node, weight), graph.constant(_bias(node))


def convolution_anchor(lowering: Lowering, node: Node) -> Anchor:
    """The convolution of x (N, C, H, W) or (N, C, W), whose result lies in memory as (N, H, W, C)."""
    weight = lowering.graph.constant(node.args[1])
    assert weight is not None
    window, groups = _window(node, weight)
    flat = weight.dim() == 3
    sizes: list[Dim] = [plain(size) for size in node.type.shape]
    if flat:
        weight = lowering.unsqueezed(weight)
        sizes.insert(2, 1)

    def view(buffer: Buffer) -> View:
        whole = contiguous(buffer, (sizes[0], sizes[2], sizes[3], sizes[1])).permute((0, 3, 1, 2))
        return whole.drop([2]) if flat else whole

    return (_dense if groups == 1 else _depthwise)(lowering, node, weight, window, sizes, view)


def _dense(
    lowering: Lowering,
    node: Node,
    weight: torch.Tensor,
    window: Window,
    sizes: list[Dim],
    view: Callable[[Buffer], View],
) -> Anchor:
    x = _image(lowering, node)
    channels = weight.shape[0]
    nhwc = x.permute((0, 2, 3, 1))
    image = same(x.strides[3], 1) and _is_image(x.sizes)
    if not image:
        nhwc = pixels_last(lowering, x)
    pixels = (sizes[0], sizes[2], sizes[3])
    if not image and _is_pointwise(window):
        merged = nhwc.reshape((nhwc.sizes[0], 1, product(nhwc.sizes[1:3]), nhwc.sizes[3]))
        if merged is not None:
            nhwc, pixels = merged, (sizes[0], 1, product(sizes[2:]))
    source = x if image else nhwc
    kernel_sizes = (*pixels, channels)

    def make(extras: Sequence[Operand], expression: Expression) -> Recipe:
        return convolution_recipe(
            operand(source), channels, window, extras=extras, expression=expression, channels_first=image
        )

    plain_recipe = lowering.tiled(make((), (("accumulator",),)), source, kernel_sizes)
    packed = lowering.derived(
        weight,
        f"packed for {plain_recipe.key}",
        lambda w: torch.from_numpy(pack_convolution(w.numpy(), plain_recipe)),
    )

    def recipe(others: Sequence[Operand], _: Operand, expression: Expression) -> Recipe:
        return with_block(make(others, expression), block_of(plain_recipe))

    return Anchor((source, packed), _bias_views(lowering, node, kernel_sizes), kernel_sizes, view, recipe)


def _depthwise(
    lowering: Lowering,
    node: Node,
    weight: torch.Tensor,
    window: Window,
    sizes: list[Dim],
    view: Callable[[Buffer], View],
) -> Anchor:
    members = lowering.fusion.heads.get(node.id)
    head = make_head(lowering, members) if members else Head((pixels_last(lowering, _image(lowering, node)),), ())
    first, *beside = (operand(view) for view in head.views)
    packed = lowering.derived(weight, "packed for depthwise", lambda w: torch.from_numpy(pack_depthwise(w.numpy())))
    kernel_sizes = (sizes[0], sizes[2], sizes[3], sizes[1])

    def recipe(others: Sequence[Operand], _: Operand, expression: Expression) -> Recipe:
        return depthwise_recipe(
            first, window, beside=beside, before=head.expression, extras=others, expression=expression
        )

    return Anchor((*head.views, packed), _bias_views(lowering, node, kernel_sizes), kernel_sizes, view, recipe)


def _image(lowering: Lowering, node: Node) -> View:
    """The input as (N, C, H, W)."""
    x = lowering.tensor(node.args[0])
    return x.insert(2) if x.rank == 3 else x


def _bias_views(lowering: Lowering, node: Node, sizes: tuple[Dim, ...]) -> tuple[View, ...]:
    bias = _bias(node)
    return () if bias is None else (lowering.tensor(bias).expand(sizes),)


def _is_image(sizes: Sequence[Dim]) -> bool:
    """Whether (N, C, H, W) has few channels and enough pixels: such a tensor is read in place, as it comes."""
    channels, height, width = sizes[1:]
    if not isinstance(channels, int) or not isinstance(height, int) or not isinstance(width, int):
        return False
    return channels <= _FEW_CHANNELS and min(height, width) >= _SMALLEST_SIDE


def _bias(node: Node) -> Argument:
    return node.args[2] if len(node.args) > 2 else node.keyword("bias")


def _is_pointwise(window: Window) -> bool:
    return window.kernel == (1, 1) and window.stride == (1, 1) and window.padding == (0, 0, 0, 0)


def _window(node: Node, weight: torch.Tensor) -> tuple[Window, int]:
    """The window and the groups.

    Raises:
        ValueError: if an argument is not of a kind that templates know.
    """
    general = node.op == "aten.convolution.default"
    defaults: tuple[Argument, ...] = (1, 0, 1, False, 0, 1) if general else (1, 0, 1, 1)
    names = (
        ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
        if general
        else (
            "stride",
            "padding",
            "dilation",
            "groups",
        )
    )
    given = [
        node.args[3 + position] if len(node.args) > 3 + position else node.keyword(name, default)
        for position, (name, default) in enumerate(zip(names, defaults, strict=True))
    ]
    if general and given[3] is not False:
        raise ValueError("transposed")
    rank = weight.dim() - 2
    stride, dilation = (_pair(given[position], rank, 1) for position in (0, 2))
    kernel = (1, weight.shape[2]) if rank == 1 else (weight.shape[2], weight.shape[3])
    if given[1] == "same":
        total = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
        padding = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    else:
        up, left = _pair(0 if given[1] == "valid" else given[1], rank, 0)
        padding = (up, up, left, left)
    groups = given[-1]
    if not isinstance(groups, int):
        raise ValueError("groups")  # noqa: TRY004
    return Window(kernel, stride, padding, dilation), groups


def _pair(value: Argument, rank: int, neutral: int) -> tuple[int, int]:
    numbers = value if isinstance(value, tuple) else (value,) * rank
    if any(type(number) is not int for number in numbers):
        raise ValueError(str(value))
    found = [int(number) for number in numbers if isinstance(number, int)]
    if len(found) == 1:
        found *= rank
    return (neutral, found[0]) if rank == 1 else (found[0], found[1])
