"""Constants that a branch or loop is given become constants of its regions, so that their weights can be packed."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taut.graph import Argument, Builder, Graph, Node, Ref, rewrite


def constants_inside(graph: Graph) -> Graph:
    """The graph with constant operands of `cond` and fixed ones of `while_loop` inside their regions."""
    if not any(node.regions for node in graph.nodes):
        return graph
    return rewrite(graph, lambda node, builder: _moved(graph, node, builder))


def _moved(graph: Graph, node: Node, builder: Builder) -> tuple[Ref, ...] | None:
    operands = node.args[-1]
    if node.op not in ("cond", "while_loop") or not isinstance(operands, tuple):
        return None
    before = len(node.args[0]) if node.op == "while_loop" and isinstance(node.args[0], tuple) else 0
    constants = {
        before + position: (tensor, str(graph.nodes[item.node].args[1]))
        for position, item in enumerate(operands)
        if isinstance(item, Ref) and (tensor := graph.constant(item)) is not None
    }
    kept: Argument = tuple(item for position, item in enumerate(operands) if before + position not in constants)
    made = builder.add(
        node.op,
        *(builder.map(argument) for argument in (*node.args[:-1], kept)),
        outputs=node.outputs,
        kwargs={name: builder.map(value) for name, value in node.kwargs},
        regions=tuple(constants_inside(_given(region, constants)) for region in node.regions),
        module_path=node.module_path,
        source=node.source,
    )
    return tuple(Ref(made.node, index) for index in range(len(node.outputs)))


def _given(region: Graph, constants: Mapping[int, tuple[torch.Tensor, str]]) -> Graph:
    """The region with constants in place of some of its inputs."""
    values = {region.inputs[position]: constant for position, constant in constants.items()}

    def replaced(node: Node, builder: Builder) -> Ref | None:
        return builder.constant(*values[node.id]) if node.id in values else None

    return rewrite(region, replaced)
