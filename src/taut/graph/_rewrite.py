"""Rewriting: a new graph from an old one, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from taut.graph._types import Argument, Graph, Node, Ref, TensorType, ValueType, content_hash, map_tree, references


class Builder:
    """Builds a graph node by node; made by `rewrite`, or by hand for a graph from nothing.

    Args:
        original: the graph that is being rewritten, if any; `map` translates its values.
    """

    def __init__(self, original: Graph | None = None) -> None:
        self.original = original
        self._nodes: list[Node] = []
        self._inputs: list[int] = []
        self._constants: dict[str, torch.Tensor] = {}
        self._constant_refs: dict[tuple[str, str], Ref] = {}
        self._mapped: dict[Ref, Ref] = {}

    def add(
        self,
        op: str,
        *args: Argument,
        outputs: ValueType | tuple[ValueType, ...],
        kwargs: Mapping[str, Argument] | None = None,
        regions: tuple[Graph, ...] = (),
        module_path: str = "",
        source: str = "",
    ) -> Ref:
        """Append a node; returns its first output. Arguments refer to the *new* graph."""
        types = outputs if isinstance(outputs, tuple) else (outputs,)
        ordered = tuple(sorted((kwargs or {}).items()))
        node = Node(len(self._nodes), op, tuple(args), ordered, types, regions, module_path, source)
        self._nodes.append(node)
        return Ref(node.id)

    def input(self, name: str, value_type: ValueType) -> Ref:
        """Append an input."""
        ref = self.add("input", name, outputs=value_type)
        self._inputs.append(ref.node)
        return ref

    def constant(self, tensor: torch.Tensor, name: str, *, buffer: bool = False, key: str = "") -> Ref:
        """Append a parameter or buffer; the same content under the same name is stored once.

        A buffer does not count as parameters. `key` is the content hash, where that is already known. A tensor that is
        neither contiguous nor channels-last is copied, as a graph knows no other layout.
        """
        last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        tensor = tensor.detach() if last else tensor.detach().contiguous()
        key = key or content_hash(tensor)
        if (key, name) not in self._constant_refs:
            self._constants.setdefault(key, tensor)
            plain = tensor.dim() != 4 or tensor.is_contiguous()
            kind = TensorType(tuple(tensor.shape), tensor.dtype, "contiguous" if plain else "channels_last")
            self._constant_refs[key, name] = self.add(
                "constant", key, name, outputs=kind, kwargs={"buffer": True} if buffer else None
            )
        return self._constant_refs[key, name]

    def copy(self, node: Node) -> tuple[Ref, ...]:
        """Append a node of the original graph with its arguments translated."""
        if node.op == "constant":
            assert self.original is not None
            key, name = str(node.args[0]), str(node.args[1])
            buffer = node.keyword("buffer") is True
            return (self.constant(self.original.constants[key], name, buffer=buffer, key=key),)
        if node.op == "input":
            return (self.input(str(node.args[0]), node.outputs[0]),)
        ref = self.add(
            node.op,
            *(self.map(argument) for argument in node.args),
            outputs=node.outputs,
            kwargs={name: self.map(value) for name, value in node.kwargs},
            regions=node.regions,
            module_path=node.module_path,
            source=node.source,
        )
        return tuple(Ref(ref.node, index) for index in range(len(node.outputs)))

    def map(self, argument: Argument) -> Argument:
        """Translate an argument of the original graph into the new one."""
        if isinstance(argument, Ref):
            return self._mapped[argument]
        if isinstance(argument, tuple):
            return tuple(self.map(item) for item in argument)
        return argument

    def value_type(self, ref: Ref) -> ValueType:
        """The type of a value of the new graph."""
        return self._nodes[ref.node].outputs[ref.output]

    def replace(self, old: Ref, new: Ref) -> None:
        """From here on, uses of `old` in the original become uses of `new`."""
        self._mapped[old] = new

    def finish(self, outputs: object, **fields: object) -> Graph:
        """The graph, with the given output structure (over the new graph's values)."""
        graph = Graph(tuple(self._nodes), tuple(self._inputs), outputs, self._constants, **fields)  # pyright: ignore
        return eliminate_dead_code(graph)


def rewrite(graph: Graph, visit: Callable[[Node, Builder], Ref | tuple[Ref, ...] | None]) -> Graph:
    """Rebuild a graph in topological order, then drop what nothing uses.

    Args:
        graph: the graph to start from.
        visit: called for each node with the builder of the new graph. It returns the values that replace the
            node's outputs, or None to copy the node. To fuse a producer into its consumer, emit the fused node at
            the consumer; the producer, no longer used, is dropped.

    Returns:
        The new graph; inputs keep their order, symbols and guards are kept.
    """
    builder = Builder(graph)
    for node in graph.nodes:
        made = visit(node, builder)
        refs = builder.copy(node) if made is None else (made,) if isinstance(made, Ref) else made
        for index, ref in enumerate(refs):
            builder.replace(Ref(node.id, index), ref)
    outputs = map_tree(graph.outputs, builder.map)
    return builder.finish(outputs, symbols=graph.symbols, guards=graph.guards)


def eliminate_dead_code(graph: Graph) -> Graph:
    """The graph without nodes whose values reach no output; inputs and checks stay."""
    live: set[int] = set()
    pending = [ref.node for ref in references(graph.outputs)]
    pending += [node.id for node in graph.nodes if node.op in ("input", "check")]
    while pending:
        current = pending.pop()
        if current not in live:
            live.add(current)
            pending += [ref.node for ref in graph.nodes[current].inputs]
    if len(live) == len(graph.nodes):
        return graph
    builder = Builder(graph)
    for node in graph.nodes:
        if node.id in live:
            for index, ref in enumerate(builder.copy(node)):
                builder.replace(Ref(node.id, index), ref)
    outputs = map_tree(graph.outputs, builder.map)
    return builder.finish(outputs, symbols=graph.symbols, guards=graph.guards)
