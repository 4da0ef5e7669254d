"""A graph as operators that streams run, and what of it cannot be captured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import torch

from taut.compile.interop import Operator, OperatorGraph
from taut.compile.scheduling._merge import Mergeable, mergeable
from taut.compile.scheduling.streams._program import PROLOGUE
from taut.errors import GraphError
from taut.graph import Graph, Node, Ref, ScalarType, TensorType, ValueType, is_torch_operator, resolve

_CONVOLUTIONS = ("aten.convolution.default", "aten.conv1d.default", "aten.conv2d.default", "aten.conv2d.padding")
_DECODE = "taut.decode.default"


@dataclasses.dataclass(frozen=True)
class StreamOperators:
    """What streams run: each operator is a few nodes of a graph that run one after the other.

    Attributes:
        source: the graph that the nodes are of.
        graph: the operators, named by the modules that they come from.
        nodes: of each operator, ascending.
        prologue: nodes that need nothing but inputs and constants and launch no work, such as views of inputs.
    """

    source: Graph
    graph: OperatorGraph
    nodes: tuple[tuple[int, ...], ...]
    prologue: tuple[int, ...]

    @property
    def returned(self) -> frozenset[int]:
        """The operators that a result of the graph comes from."""
        made = {ref.node for ref in self.source.output_refs}
        return frozenset(number for number, own in enumerate(self.nodes) if not made.isdisjoint(own))


def stream_operators(graph: Graph) -> StreamOperators:
    """The operators of a graph.

    What launches no work, such as a view or a size, belongs to the operator that made its input. Pointwise operators
    belong to the operator before or behind them where these two wait for nothing else, sums of sums are one, and a
    depthwise convolution belongs to the one behind it. Convolutions that could be merged stay apart, each with its
    activation. Operators that draw random numbers depend on each other in their order, so that every schedule draws
    the same.

    Args:
        graph: as it was captured.

    Raises:
        GraphError: what it does cannot be captured, since the host would have to wait for a result.
    """
    _refuse(graph)
    grouping = _Grouping(graph)
    leaders = sorted(set(grouping.owner.values()) - {PROLOGUE})
    edges = grouping.edges()
    order = {leader: number for number, leader in enumerate(leaders)}
    nodes = tuple(tuple(sorted(grouping.members[leader])) for leader in leaders)
    made = [_operator(graph, own, grouping.merged.get(leader)) for leader, own in zip(leaders, nodes, strict=True)]
    numbered = sorted((order[a], order[b]) for a, b in edges)
    prologue = tuple(sorted(node for node, owner in grouping.owner.items() if owner == PROLOGUE))
    return StreamOperators(graph, OperatorGraph.from_edges(len(leaders), numbered, made), nodes, prologue)


def outside(operators: StreamOperators) -> tuple[frozenset[Ref], ...]:
    """Of each operator the values that others or the results of the graph need."""
    owner = {node: number for number, own in enumerate(operators.nodes) for node in own}
    needed: list[set[Ref]] = [set() for _ in operators.nodes]
    for node in operators.source.nodes:
        for ref in node.inputs:
            if ref.node in owner and owner[ref.node] != owner.get(node.id):
                needed[owner[ref.node]].add(ref)
    for ref in operators.source.output_refs:
        if ref.node in owner:
            needed[owner[ref.node]].add(ref)
    return tuple(map(frozenset, needed))


class _Grouping:
    """Which node leads each node; the prologue leads those that no operator has."""

    def __init__(self, graph: Graph) -> None:
        self.owner: dict[int, int] = {}
        self.members: dict[int, set[int]] = {}
        self.merged: dict[int, Mergeable] = {}
        self._graph = graph
        self._random = [node.id for node in graph.nodes if _tagged(node, torch.Tag.nondeterministic_seeded)]
        for node in graph.nodes:
            if not _runs(graph, node):
                continue
            before = self._producers({node.id})
            leader = node.id
            if _is_weightless(node) and len(before) < 2:
                leader = before.pop() if before else PROLOGUE
            self.owner[node.id] = leader
            if leader != PROLOGUE:
                self.members.setdefault(leader, set()).add(node.id)
        classes: dict[object, list[Mergeable]] = {}
        for one in mergeable(graph):
            if (key := one.convolution.merge_key()) is not None:
                classes.setdefault(key, []).append(one)
        for one in itertools.chain.from_iterable(group for group in classes.values() if len(group) > 1):
            if one.activation is not None:
                self._join(self.owner[one.node], self.owner[one.activation])
            leader = self.owner[one.node]
            if self.members[leader] == {one.node, one.result}:
                self.merged[leader] = one
        while self._contract():
            pass

    def edges(self) -> set[tuple[int, int]]:
        """Pairs of leaders, the second of which needs the first."""
        made = {
            (before, leader)
            for leader, own in self.members.items()
            for before in self._producers(own)
            if before != leader
        }
        random = [self.owner[node] for node in self._random]
        return made | {(a, b) for a, b in itertools.pairwise(random) if a != b}

    def _contract(self) -> bool:
        """Join pairs of operators of which one waits for nothing but the other; whether there were any."""
        behind: dict[int, set[int]] = {leader: set() for leader in self.members}
        before: dict[int, set[int]] = {leader: set() for leader in self.members}
        for a, b in self.edges():
            behind[a].add(b)
            before[b].add(a)
        fixed = {self.owner[node] for node in self._random} | set(self.merged)
        touched: set[int] = set()
        for leader in sorted(self.members):
            if len(behind[leader]) != 1 or leader in fixed:
                continue
            (only,) = behind[leader]
            if only in fixed or not touched.isdisjoint({leader, only, *before[only], *before[leader]}):
                continue
            chain = len(before[only]) == 1 and not (self._heavy(leader) and self._heavy(only))
            sums = self._pointwise(leader) and self._pointwise(only)
            if chain or sums:
                self._join(leader, only)
                touched |= {leader, only}
        return bool(touched)

    def _join(self, first: int, second: int) -> None:
        kept, gone = min(first, second), max(first, second)
        if kept == gone:
            return
        for node in self.members[gone]:
            self.owner[node] = kept
        self.members[kept] |= self.members.pop(gone)

    def _producers(self, nodes: set[int]) -> set[int]:
        used = {ref.node for node in nodes for ref in self._graph.nodes[node].inputs}
        return {self.owner[node] for node in used if node in self.owner} - {PROLOGUE}

    def _pointwise(self, leader: int) -> bool:
        nodes = [self._graph.nodes[node] for node in self.members[leader]]
        return all(_is_weightless(node) or _tagged(node, torch.Tag.pointwise) for node in nodes)

    def _heavy(self, leader: int) -> bool:
        nodes = [self._graph.nodes[node] for node in self.members[leader]]
        light = (_is_weightless(n) or _tagged(n, torch.Tag.pointwise) or _is_depthwise(self._graph, n) for n in nodes)
        return not all(light)


def _refuse(graph: Graph) -> None:
    for node in graph.nodes:
        reason = None
        if node.regions:
            reason = "its branches and loops are decided by the host"
        elif _tagged(node, torch.Tag.data_dependent_output):
            reason = "the host reads a value that it computed"
        elif any(_depends_on_data(graph, kind) for kind in node.outputs):
            reason = "the size of its result depends on data"
        if reason is not None:
            where = f" at {node.source or node.module_path}" if node.source or node.module_path else ""
            raise GraphError(
                f"{node.op}{where} cannot be captured: {reason}",
                expected="a model whose work is the same in each call",
                fix="run this part in front of or behind the captured model, or compile the model with taut.compile",
            )


def _depends_on_data(graph: Graph, kind: ValueType) -> bool:
    sizes = kind.shape if isinstance(kind, TensorType) else ()
    used = {str(symbol) for size in sizes if not isinstance(size, int) for symbol in size.free_symbols}
    return any(not graph.symbols[name].backed for name in used if name in graph.symbols)


def _runs(graph: Graph, node: Node) -> bool:
    """Whether a node does anything when the graph is run: weights are decoded when it is laid out."""
    decoded = node.op == _DECODE and all(graph.constant(ref) is not None for ref in node.inputs)
    return node.op not in ("input", "constant") and not decoded


def _is_weightless(node: Node) -> bool:
    """Whether a node launches no work: arithmetic on sizes, or a view. Few of what counts as views copy."""
    if not is_torch_operator(node.op):
        return True
    if node.outputs and all(isinstance(kind, ScalarType) for kind in node.outputs):
        return True
    returns = resolve(node.op)._schema.returns
    return bool(returns) and all(item.alias_info is not None for item in returns)


def _is_depthwise(graph: Graph, node: Node) -> bool:
    weight = graph.constant(node.args[1]) if node.op in _CONVOLUTIONS else None
    return weight is not None and weight.dim() > 2 and weight.shape[1] == 1


def _tagged(node: Node, tag: torch.Tag) -> bool:
    return is_torch_operator(node.op) and tag in resolve(node.op).tags


def _operator(graph: Graph, own: tuple[int, ...], merged: Mergeable | None) -> Operator:
    nodes = [graph.nodes[number] for number in own]
    working = [node for node in nodes if not _is_weightless(node)] or nodes
    leading = next((node for node in working if not _tagged(node, torch.Tag.pointwise)), working[-1])
    kind = leading.op.split(".")[1] if is_torch_operator(leading.op) else leading.op
    name = leading.module_path or next(_paths(nodes), f"{kind} %{leading.id}")
    return Operator(name, kind, None if merged is None else merged.convolution)


def _paths(nodes: list[Node]) -> Iterator[str]:
    return (node.module_path for node in nodes if node.module_path)
