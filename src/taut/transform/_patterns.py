"""Reading a graph: arguments, single uses, and one view of all the convolutions and linear layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from taut.graph import Argument, Builder, Graph, Node, Ref, TensorType

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_GENERAL = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
CONVOLUTIONS: dict[str, tuple[tuple[str, ...], bool]] = {
    **{f"aten.conv{rank}d.{form}": (_CONVOLUTION, False) for rank in (1, 2, 3) for form in ("default", "padding")},
    "aten.conv_transpose1d.default": (_TRANSPOSED, True),
    "aten.conv_transpose2d.input": (_TRANSPOSED, True),
    "aten.conv_transpose3d.input": (_TRANSPOSED, True),
    "aten.convolution.default": (_GENERAL, False),
}
LINEAR = "aten.linear.default"


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or linear layer whose weight (and bias, if any) are constants.

    Attributes:
        node: the node.
        input: the activation it reads.
        weight: (out, in / groups, *kernel); (in, out / groups, *kernel) where transposed; (out, in) where linear.
        bias: (out,) or None.
        stride: one entry a spatial dimension; likewise padding (zero padding) and dilation; all empty where linear.
            `padding` is None where it is not symmetric.
        groups: number of groups.
        transposed: whether it is a transposed convolution.
        linear: whether it is a linear layer.
    """

    node: Node
    input: Ref
    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | None = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    linear: bool = False

    @property
    def pointwise(self) -> bool:
        """Whether each output position reads one input position, the same one, and no padding."""
        ones = (1,) * (self.weight.dim() - 2)
        plain = self.weight.shape[2:] == ones and self.stride == ones and not any(self.padding or (1,))
        return self.linear or (plain and not self.transposed)

    @property
    def output_channels(self) -> int:
        """Number of output channels."""
        return self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]


def layer(graph: Graph, node: Node) -> Layer | None:
    """The node as a `Layer`, or None if it is none or its weight or bias is computed at run time."""
    if node.op == LINEAR:
        given = arguments(node, ("input", "weight", "bias"))
    elif node.op in CONVOLUTIONS:
        given = arguments(node, CONVOLUTIONS[node.op][0])
    else:
        return None
    weight, bias = graph.constant(given["weight"]), graph.constant(given.get("bias"))
    if weight is None or (bias is None and given.get("bias") is not None) or not isinstance(given["input"], Ref):
        return None
    if node.op == LINEAR:
        return Layer(node, given["input"], weight, bias, linear=True)
    rank = weight.dim() - 2
    dilation = _per_dimension(given.get("dilation", 1), rank)
    padding = given.get("padding", 0)
    groups = given.get("groups", 1)
    if dilation is None or not isinstance(groups, int):
        return None
    stride = _per_dimension(given.get("stride", 1), rank)
    transposed = CONVOLUTIONS[node.op][1] or given.get("transposed") is True
    if stride is None:
        return None
    if padding == "same":
        total = tuple(step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True))
        sides = None if any(item % 2 for item in total) else tuple(item // 2 for item in total)
    else:
        sides = _per_dimension(0 if padding == "valid" else padding, rank)
    return Layer(node, given["input"], weight, bias, stride, sides, dilation, groups, transposed)


def _per_dimension(value: Argument, rank: int) -> tuple[int, ...] | None:
    items = value if isinstance(value, tuple) else (value,)
    numbers = tuple(item for item in items if isinstance(item, int))
    if len(numbers) != len(items) or len(numbers) not in (1, rank):
        return None
    return numbers * rank if len(numbers) == 1 else numbers


def arguments(node: Node, names: tuple[str, ...]) -> dict[str, Argument]:
    """The arguments that were given, by name; `names` are the operator's parameters in order."""
    return {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}


def only_user(graph: Graph, node: Node) -> Node | None:
    """The single node that uses the node's first output, exactly once; None if there are more uses or outputs."""
    if graph.uses(node.id) != 1 or not graph.users[node.id]:
        return None
    user = graph.nodes[graph.users[node.id][0]]
    return user if user.inputs.count(Ref(node.id)) == 1 and not user.regions else None


def constant_name(graph: Graph, node: Node, index: int, name: str) -> str:
    """The name of the constant behind an argument; for a missing one, the module's path and the given name."""
    argument = node.args[index] if index < len(node.args) else dict(node.kwargs).get(name)
    if isinstance(argument, Ref):
        return str(graph.nodes[argument.node].args[1])
    return f"{node.module_path}.{name}" if node.module_path else name


def emit_constant(builder: Builder, graph: Graph, node: Node, index: int) -> Ref | None:
    """The constant weight (index 1) or bias (index 2) of a layer, in the new graph; None where there is none."""
    argument = arguments(node, ("input", "weight", "bias")).get(("input", "weight", "bias")[index])
    found = builder.map(argument)
    return found if isinstance(found, Ref) else None


def emit_layer(
    builder: Builder,
    graph: Graph,
    old: Node,
    source: Ref,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    like: Node,
) -> Ref:
    """Emit a convolution or linear node with another weight and bias.

    Args:
        builder: builder of the new graph.
        graph: the old graph.
        old: the layer whose remaining arguments (stride, ...) are kept.
        source: the input, in the new graph.
        weight: the new weight.
        bias: the new bias, or None.
        like: the old node whose output type and place the new one takes.
    """
    new_bias = None if bias is None else builder.constant(bias, constant_name(graph, old, 2, "bias"))
    head = (source, builder.constant(weight, constant_name(graph, old, 1, "weight")), new_bias)
    rest = {name: builder.map(value) for name, value in old.kwargs if name not in ("input", "weight", "bias")}
    return builder.add(
        old.op,
        *head,
        *(builder.map(argument) for argument in old.args[3:]),
        outputs=like.outputs[0],
        kwargs=rest,
        module_path=old.module_path,
        source=old.source,
    )


def tensor_type(graph: Graph, argument: Argument) -> TensorType | None:
    """The type behind an argument if it is a tensor."""
    if not isinstance(argument, Ref):
        return None
    found = graph.value_type(argument)
    return found if isinstance(found, TensorType) else None


def rebuild(
    graph: Graph,
    visit: Callable[[Node, Builder], Ref | tuple[Ref, ...] | None],
    output: Callable[[Ref, Builder], Ref],
) -> Graph:
    """Like `taut.graph.rewrite`, with a say in the outputs.

    Args:
        graph: the graph to start from.
        visit: as in `rewrite`.
        output: called for each output leaf (a value of the old graph); returns the value of the new graph.
    """
    builder = Builder(graph)
    for node in graph.nodes:
        made = visit(node, builder)
        refs = builder.copy(node) if made is None else (made,) if isinstance(made, Ref) else made
        for index, ref in enumerate(refs):
            builder.replace(Ref(node.id, index), ref)

    def convert(tree: object) -> object:
        if isinstance(tree, Ref):
            return output(tree, builder)
        if isinstance(tree, (tuple, list)):
            return type(tree)(convert(item) for item in tree)
        if isinstance(tree, Mapping):
            return {key: convert(item) for key, item in tree.items()}
        return tree

    return builder.finish(convert(graph.outputs), symbols=graph.symbols, guards=graph.guards)
