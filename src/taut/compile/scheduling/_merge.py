"""Convolutions of one input as one convolution: the strategy `merge`, as a rewriting of the graph.

The outputs are joined along the channels, and smaller kernels are padded with zeros about their centre (Ding et al.,
"IOS: Inter-Operator Scheduler for CNN Acceleration", MLSys 2021, section 3).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch

from taut.compile._convolutions import convolution_parts, is_convolution
from taut.compile.interop import Convolution
from taut.errors import ArgumentError
from taut.graph import Argument, Builder, Graph, Node, Ref, TensorType, rewrite

CONVOLUTION = "aten.convolution.default"
_OPERATORS = (CONVOLUTION, "aten.conv2d.default", "aten.conv2d.padding")
_ACTIVATIONS = tuple(
    f"aten.{name}.default"
    for name in (
        "relu",
        "relu6",
        "hardtanh",
        "leaky_relu",
        "elu",
        "silu",
        "gelu",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "tanh",
    )
)
_JOIN = "aten.cat.default"
_SPLIT = "aten.split_with_sizes.default"
_SLICE = "aten.slice.Tensor"


@dataclasses.dataclass(frozen=True)
class Mergeable:
    """A convolution that might be merged with others.

    Attributes:
        node: its number in the graph.
        activation: the number of the node that applies its activation, None without one.
        convolution: what decides with which others.
        weight: (out, in, height, width).
        bias: (out,) or None.
    """

    node: int
    activation: int | None
    convolution: Convolution
    weight: torch.Tensor
    bias: torch.Tensor | None

    @property
    def result(self) -> int:
        """The node whose value others use."""
        return self.node if self.activation is None else self.activation

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        height, width = self.convolution.output_size
        return self.weight.numel() * height * width


def mergeable(graph: Graph) -> list[Mergeable]:
    """The convolutions of a graph that might be merged, in order: two-dimensional, of fixed sizes, with one group."""
    found = (_mergeable(graph, node) for node in graph.nodes if node.op in _OPERATORS)
    return [one for one in found if one is not None]


def merge_convolutions(graph: Graph, groups: Sequence[Sequence[int]]) -> Graph:
    """The graph with each group of convolutions as one.

    Slices that lie next to each other are joined again without a copy where a concatenation wants them so.

    Args:
        graph: as it was captured.
        groups: numbers of convolution nodes; those of a group have equal merge keys.

    Raises:
        ArgumentError: a group cannot be merged.
    """
    known = {one.node: one for one in mergeable(graph)}
    chosen: list[list[Mergeable]] = []
    for group in groups:
        missing = [node for node in group if node not in known]
        keys = {known[node].convolution.merge_key() for node in group if node in known}
        if missing or len(group) < 2 or len(keys) != 1 or None in keys:
            raise ArgumentError(
                "groups", list(group), expected="two or more convolutions of one input, equal but for their kernels"
            )
        chosen.append([known[node] for node in sorted(group)])
    starts = {group[0].node: group for group in chosen}
    made: dict[int, tuple[Ref, Ref, int, int]] = {}  # by result: its slice, the whole, where it begins and ends

    def visit(node: Node, builder: Builder) -> Ref | None:
        if node.id in starts:
            made.update(_merged(graph, builder, starts[node.id]))
        if node.id in made:
            return made[node.id][0]
        if node.op == _JOIN:
            return _joined(node, builder, made)
        return None

    return rewrite(graph, visit)


def merged_path(graph: Graph, nodes: Sequence[int]) -> str:
    """What stands for the modules of merged convolutions."""
    return "+".join(graph.nodes[node].module_path or str(node) for node in sorted(nodes))


def _mergeable(graph: Graph, node: Node) -> Mergeable | None:
    weight = graph.constant(node.args[1])
    if weight is None or weight.dim() != 4 or not is_convolution(graph, node) or not isinstance(node.args[0], Ref):
        return None
    window, groups, bias = convolution_parts(graph, node)
    shapes = [graph.value_type(node.args[0]), node.outputs[0]]
    sizes = [kind.shape[1:] for kind in shapes if isinstance(kind, TensorType)]
    up, down, left, right = window.padding
    if (
        len(sizes) != 2
        or not all(isinstance(size, int) for shape in sizes for size in shape)
        or (up, left) != (down, right)
    ):
        return None
    users = graph.users[node.id]
    user = graph.nodes[users[0]] if graph.uses(node.id) == 1 and users else None
    active = user is not None and user.op in _ACTIVATIONS and user.inputs == (Ref(node.id),)
    convolution = Convolution(
        source=str(node.args[0]),
        input_shape=tuple(int(size) for size in sizes[0]),  # pyright: ignore[reportArgumentType]
        output_size=tuple(int(size) for size in sizes[1][1:]),  # pyright: ignore[reportArgumentType]
        kernel=window.kernel,
        stride=window.stride,
        padding=(up, left),
        groups=groups,
        activation=f"{user.op}{user.args[1:]}{user.kwargs}" if active and user is not None else "",
        dilation=window.dilation,
    )
    return Mergeable(node.id, user.id if active and user is not None else None, convolution, weight, bias)


def _merged(graph: Graph, builder: Builder, group: Sequence[Mergeable]) -> dict[int, tuple[Ref, Ref, int, int]]:
    """The wide convolution in place of a group; the values that its members' results become."""
    kernel = tuple(max(one.convolution.kernel[axis] for one in group) for axis in (0, 1))
    padding = tuple(max(one.convolution.padding[axis] for one in group) for axis in (0, 1))
    weight = torch.cat([_about_centre(one.weight, kernel) for one in group])
    bias = None
    if any(one.bias is not None for one in group):
        bias = torch.cat([one.weight.new_zeros(len(one.weight)) if one.bias is None else one.bias for one in group])
    nodes = [graph.nodes[one.node] for one in group]
    name = merged_path(graph, [one.node for one in group])
    kind = nodes[0].type
    wide = TensorType((kind.shape[0], len(weight), *kind.shape[2:]), kind.dtype)
    whole = builder.add(
        CONVOLUTION,
        builder.map(nodes[0].args[0]),
        builder.constant(weight, f"{name}.weight"),
        None if bias is None else builder.constant(bias, f"{name}.bias"),
        group[0].convolution.stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        1,
        outputs=wide,
        module_path=name,
    )
    if group[0].activation is not None:
        activation = graph.nodes[group[0].activation]
        whole = builder.add(
            activation.op,
            whole,
            *(builder.map(argument) for argument in activation.args[1:]),
            outputs=wide,
            kwargs={key: builder.map(value) for key, value in activation.kwargs},
            module_path=name,
        )
    ends = list(itertools.accumulate(len(one.weight) for one in group))
    sizes = tuple(len(one.weight) for one in group)
    outputs = tuple(TensorType((kind.shape[0], size, *kind.shape[2:]), kind.dtype) for size in sizes)
    split = builder.add(_SPLIT, whole, sizes, 1, outputs=outputs, module_path=name)
    made = {}
    for index, (one, end) in enumerate(zip(group, ends, strict=True)):
        made[one.result] = Ref(split.node, index), whole, end - sizes[index], end
    return made


def _about_centre(weight: torch.Tensor, kernel: Sequence[int]) -> torch.Tensor:
    up, left = ((wanted - own) // 2 for wanted, own in zip(kernel, weight.shape[2:], strict=True))
    return torch.nn.functional.pad(weight, (left, left, up, up))


def _joined(node: Node, builder: Builder, made: dict[int, tuple[Ref, Ref, int, int]]) -> Ref | None:
    """A concatenation of channels in which slices next to each other are one; None where there are none."""
    items, axis = node.args[0], node.args[1] if len(node.args) > 1 else node.keyword("dim", 0)
    kind = node.outputs[0]
    if not isinstance(items, tuple) or not isinstance(kind, TensorType) or axis not in (1, 1 - len(kind.shape)):
        return None
    runs: list[tuple[Ref, int, int] | Argument] = []
    for item in items:
        known = made.get(item.node) if isinstance(item, Ref) else None
        last = runs[-1] if runs else None
        if known is None:
            runs.append(builder.map(item))
        elif isinstance(last, tuple) and last[0] == known[1] and last[2] == known[2]:
            runs[-1] = (known[1], last[1], known[3])  # pyright: ignore[reportArgumentType]
        else:
            runs.append(known[1:])
    if len(runs) == len(items):
        return None
    parts = [_channels(builder, *run) if isinstance(run, tuple) else run for run in runs]  # pyright: ignore
    if len(parts) == 1 and isinstance(parts[0], Ref):
        return parts[0]
    return builder.add(_JOIN, tuple(parts), 1, outputs=kind, module_path=node.module_path, source=node.source)


def _channels(builder: Builder, whole: Ref, begin: int, end: int) -> Ref:
    kind = builder.value_type(whole)
    assert isinstance(kind, TensorType)
    if (begin, end) == (0, kind.shape[1]):
        return whole
    shape = (kind.shape[0], end - begin, *kind.shape[2:])
    return builder.add(_SLICE, whole, 1, begin, end, 1, outputs=TensorType(shape, kind.dtype))
