"""Checks the encoded tensors of a graph that comes from a file."""

from __future__ import annotations

from taut.errors import ArgumentError, ArtefactError
from taut.graph import Graph, Node, Ref, TensorType
from taut.numerics import get_format

BUFFERS = {"taut.decode.default": 0, "taut.encoded_embedding.default": 1}
"""Where the buffers of an encoded tensor stand in an operator's arguments; its format and its shape follow."""
_FORMAT = {"taut.fake_quantise.default": 1}
_FIX = "take the bundle from its source again"


def check_encoded(graph: Graph, source: str) -> None:
    """Refuse formats that do not exist, and buffers that are not those of their format and shape.

    Raises:
        ArtefactError: naming the node.
    """
    for node in graph.nodes:
        for region in node.regions:
            check_encoded(region, source)
        try:
            if node.op in BUFFERS:
                _check_buffers(graph, node, BUFFERS[node.op])
            elif node.op in _FORMAT:
                get_format(str(node.args[_FORMAT[node.op]]))
        except (ArgumentError, IndexError, OverflowError) as error:
            raise ArtefactError(
                f"{source}: node {node.id} ({node.op}): {str(error).splitlines()[0]}", fix=_FIX
            ) from error


def _check_buffers(graph: Graph, node: Node, position: int) -> None:
    buffers, name, shape = node.args[position : position + 3]
    sizes = tuple(size for size in shape if isinstance(size, int)) if isinstance(shape, tuple) else ()
    if not isinstance(buffers, tuple) or not isinstance(shape, tuple) or len(sizes) != len(shape):
        raise ArgumentError("shape", shape, expected="integers")
    wanted = list(get_format(str(name)).buffer_shapes(sizes).values())
    kinds = [graph.value_type(part) for part in buffers if isinstance(part, Ref)]
    given = [kind.shape for kind in kinds if isinstance(kind, TensorType)]
    if given != wanted:
        raise ArgumentError("buffers", given, expected=f"{wanted}")
    made = [kind for kind in node.outputs if isinstance(kind, TensorType)]
    if node.op.startswith("taut.decode") and [kind.shape for kind in made] != [sizes]:
        raise ArgumentError("outputs", [kind.shape for kind in made], expected=f"{sizes}")
