"""Which outputs of a graph may share memory with what does not belong to the caller alone."""

from __future__ import annotations

from taut.graph._policy import is_torch_operator, resolve
from taut.graph._types import Graph, Node, Ref, TensorType

# Return their input as it is, or a view of it, though their schemas do not say so.
_UNDECLARED = frozenset({"type_as", "meshgrid", "broadcast_tensors", "atleast_1d", "atleast_2d", "atleast_3d"})
_UNDECLARED |= {"decode", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}


def borrowed_outputs(graph: Graph) -> tuple[int, ...]:
    """Positions, among the output leaves, of tensors that may share memory with an input or a constant.

    Whoever writes to such a result would change the argument or the model's weights. Capture drops plain clones, so a
    module that clones what it returns counts on this as well.

    Args:
        graph: the graph or region.
    """
    borrowed: set[Ref] = set()
    for node in graph.nodes:
        if _lends(node) and (not node.inputs or node.regions or not borrowed.isdisjoint(node.inputs)):
            borrowed |= {Ref(node.id, i) for i, kind in enumerate(node.outputs) if isinstance(kind, TensorType)}
    return tuple(position for position, ref in enumerate(graph.output_refs) if ref in borrowed)


def _lends(node: Node) -> bool:
    """Whether the node's outputs may share memory with its inputs, or are inputs or constants themselves."""
    if node.op in ("input", "constant"):
        return True
    if node.op in ("cond", "invoke_subgraph"):
        return any(borrowed_outputs(region) for region in node.regions)
    if node.regions:
        return True  # a loop that does not run returns what it was given
    if not is_torch_operator(node.op):
        return False
    returns = resolve(node.op)._schema.returns
    return node.op.split(".")[1] in _UNDECLARED or any(item.alias_info is not None for item in returns)
