"""The immutable graph: values, nodes, symbols."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import sympy
import torch

Dim: TypeAlias = int | sympy.Expr
"""A dimension: an integer, or an expression over the graph's symbols."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor value.

    Attributes:
        shape: one entry a dimension, an integer or a sympy expression.
        dtype: the element type.
        layout: memory layout; "channels_last" holds for 4-D tensors only.
    """

    shape: tuple[Dim, ...]
    dtype: torch.dtype
    layout: Literal["contiguous", "channels_last"] = "contiguous"


@dataclasses.dataclass(frozen=True, slots=True)
class ScalarType:
    """A scalar value: a size, an index or a predicate; `expression` is its symbolic value where known."""

    kind: Literal["int", "float", "bool"]
    expression: sympy.Basic | None = None


ValueType: TypeAlias = TensorType | ScalarType


@dataclasses.dataclass(frozen=True, slots=True)
class Ref:
    """The use of output number `output` of node number `node`."""

    node: int
    output: int = 0


Argument: TypeAlias = (
    bool
    | int
    | float
    | str
    | Ref
    | torch.dtype
    | torch.layout
    | torch.device
    | torch.memory_format
    | tuple["Argument", ...]
    | None
)
"""What may stand in a node's arguments. Symbolic sizes are `Ref`s to the nodes that compute them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        id: position in `Graph.nodes`, a topological order.
        op: "input", "constant", "check", "cond", "while_loop", ... or a torch operator such as "aten.linear.default".
        args: positional arguments in the operator's own order.
        kwargs: keyword arguments, sorted by name.
        outputs: one type for each output.
        regions: subgraphs of a control-flow operation.
        module_path: the path of the module that the operation came from, e.g. "encoder.layers.0.linear1".
        source: "file.py:line" of the user's code, where known.
    """

    id: int
    op: str
    args: tuple[Argument, ...] = ()
    kwargs: tuple[tuple[str, Argument], ...] = ()
    outputs: tuple[ValueType, ...] = ()
    regions: tuple[Graph, ...] = ()
    module_path: str = ""
    source: str = ""

    @property
    def inputs(self) -> tuple[Ref, ...]:
        """The values used, in order of appearance, with repetitions."""
        return tuple(references((self.args, tuple(value for _, value in self.kwargs))))

    def keyword(self, name: str, default: Argument = None) -> Argument:
        """The keyword argument of that name, or the default."""
        return dict(self.kwargs).get(name, default)

    @property
    def type(self) -> TensorType:
        """The type of the single tensor output.

        Raises:
            TypeError: if the node has another number or kind of outputs.
        """
        if len(self.outputs) != 1 or not isinstance(self.outputs[0], TensorType):
            raise TypeError(f"node {self.id} ({self.op}) has no single tensor output")
        return self.outputs[0]


@dataclasses.dataclass(frozen=True, slots=True)
class SymbolRange:
    """The interval of a symbol, both ends included; `upper` None means unbounded.

    `backed` symbols come from an input's dimension, the others depend on data.
    """

    lower: int
    upper: int | None
    backed: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """A relation over symbols that must hold, e.g. `Eq(Mod(s0, 4), 0)`; `source` says where it came from."""

    condition: sympy.Basic
    source: str = ""


Tree: TypeAlias = "Ref | bool | int | float | str | tuple[Tree, ...] | list[Tree] | Mapping[str, Tree] | None"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A whole model, or a region of one. Every rewrite returns a new graph.

    Attributes:
        nodes: in topological order, `nodes[i].id == i`.
        inputs: ids of the "input" nodes in the order of the call; an input node's args are (name,).
        outputs: the returned structure with a `Ref` at each leaf.
        constants: parameters and buffers by content hash; a "constant" node's args are (hash, name).
            Left out of comparisons, as the nodes hold the hashes.
        symbols: the range of each symbol by name.
        guards: relations that an input must satisfy.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: Tree
    constants: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict, compare=False)
    symbols: Mapping[str, SymbolRange] = dataclasses.field(default_factory=dict)
    guards: tuple[Guard, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))
        object.__setattr__(self, "symbols", MappingProxyType(dict(self.symbols)))

    @cached_property
    def users(self) -> tuple[tuple[int, ...], ...]:
        """For each node the ids of the nodes that use any of its outputs, ascending, without repetitions."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for used in dict.fromkeys(ref.node for ref in node.inputs):
                found[used].append(node.id)
        return tuple(map(tuple, found))

    @cached_property
    def output_refs(self) -> tuple[Ref, ...]:
        """The leaves of `outputs` that are values."""
        return tuple(references(self.outputs))

    def uses(self, node_id: int) -> int:
        """How many nodes and graph outputs use the node."""
        return len(self.users[node_id]) + sum(ref.node == node_id for ref in self.output_refs)

    def value_type(self, ref: Ref) -> ValueType:
        """The type of a value."""
        return self.nodes[ref.node].outputs[ref.output]

    def constant(self, argument: Argument) -> torch.Tensor | None:
        """The tensor behind an argument if that is a constant, else None."""
        if not isinstance(argument, Ref) or self.nodes[argument.node].op != "constant":
            return None
        key = self.nodes[argument.node].args[0]
        return self.constants[str(key)]


def references(tree: object) -> Iterator[Ref]:
    """The `Ref`s in nested arguments, left to right."""
    if isinstance(tree, Ref):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from references(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from references(item)


def map_tree(tree: Any, change: Callable[[Ref], Any]) -> Any:
    """A structure with each of its `Ref`s replaced."""
    if isinstance(tree, Ref):
        return change(tree)
    if isinstance(tree, tuple):
        return tuple(map_tree(item, change) for item in tree)
    if isinstance(tree, list):
        return [map_tree(item, change) for item in tree]
    if isinstance(tree, Mapping):
        return {key: map_tree(item, change) for key, item in tree.items()}
    return tree


def content_hash(tensor: torch.Tensor) -> str:
    """A hash of dtype, shape, memory order and bytes, stable across processes (32 hex digits)."""
    value = tensor.detach().cpu()
    last = value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
    header = json.dumps([str(value.dtype), list(value.shape), "channels_last" if last else "contiguous"])
    flat = (value.permute(0, 2, 3, 1) if last else value).contiguous().reshape(-1)
    digest = hashlib.sha256(header.encode())
    digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()[:32]
