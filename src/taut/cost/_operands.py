"""One operator of a graph as a graph of its own, with fresh inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taut.cost._families import operator_name
from taut.errors import MeasurementError
from taut.graph import Argument, Builder, Graph, Node, Ref, TensorType, ValueType, evaluate

_INDEX_BY_DIMENSION = ("gather", "index_select", "take_along_dim", "scatter", "scatter_add", "index_add", "index_copy")
_SMALL = 2


def isolate(graph: Graph, node: Node, sizes: Mapping[str, int]) -> tuple[Graph, tuple[torch.Tensor, ...]]:
    """A graph of one operator, and inputs to run it on.

    The operator's tensors have the shapes, dtypes and layouts of the graph at these sizes. Constants are the graph's
    own; other floating-point values are uniform in [0, 1), indices are uniform over what they index, and other
    integers are 0 or 1, which is in range for every operator that counts classes or pads.

    Raises:
        MeasurementError: if a number that the operator takes depends on data.
    """
    maker = _Maker(graph, node, sizes)
    args = tuple(maker.argument(value) for value in node.args)
    kwargs = {name: maker.argument(value) for name, value in node.kwargs}
    outputs = tuple(maker.concrete(value) for value in node.outputs)
    made = maker.builder.add(node.op, *args, outputs=outputs, kwargs=kwargs)
    whole = tuple(Ref(made.node, index) for index in range(len(outputs)))
    return maker.builder.finish(whole), tuple(maker.inputs)


class _Maker:
    def __init__(self, graph: Graph, node: Node, sizes: Mapping[str, int]) -> None:
        self.graph, self.node, self.sizes = graph, node, sizes
        self.generator = torch.Generator().manual_seed(node.id)
        self.limits = self._limits()
        self.builder = Builder()
        self.inputs: list[torch.Tensor] = []
        self.made: dict[Ref, Argument] = {}

    def argument(self, value: Argument) -> Argument:
        if isinstance(value, tuple):
            return tuple(self.argument(item) for item in value)
        if not isinstance(value, Ref):
            return value
        if value not in self.made:  # x * x reads one tensor
            self.made[value] = self._value(value)
        return self.made[value]

    def concrete(self, kind: ValueType) -> ValueType:
        if not isinstance(kind, TensorType):
            return kind
        return TensorType(tuple(evaluate(size, self.sizes) for size in kind.shape), kind.dtype, kind.layout)

    def _value(self, ref: Ref) -> Argument:
        constant = self.graph.constant(ref)
        if constant is not None:
            return self.builder.constant(constant, "constant")
        kind = self.concrete(self.graph.value_type(ref))
        if isinstance(kind, TensorType):
            self.inputs.append(self._tensor(kind, self.limits.get(ref, _SMALL)))
            return self.builder.input(f"x{len(self.inputs)}", kind)
        if kind.expression is None:
            raise MeasurementError(
                f"node {self.node.id} ({self.node.op}) takes a number that depends on the data, so it cannot be timed"
                " alone",
                fix="give real inputs: Measured(store, inputs=...)",
            )
        return _NUMBERS[kind.kind](evaluate(kind.expression, self.sizes))  # pyright: ignore[reportArgumentType]

    def _tensor(self, kind: TensorType, limit: int) -> torch.Tensor:
        shape = [size for size in kind.shape if isinstance(size, int)]
        if kind.dtype.is_floating_point or kind.dtype.is_complex:
            made = torch.rand(shape, generator=self.generator).to(kind.dtype)
        else:
            made = torch.randint(0, max(limit, 1), shape, generator=self.generator).to(kind.dtype)
        return made.to(memory_format=torch.channels_last) if kind.layout == "channels_last" else made

    def _limits(self) -> dict[Ref, int]:
        """For each index tensor the number of rows that it may name."""
        args, name = self.node.args, operator_name(self.node.op)
        table = args[0] if args else None
        if not isinstance(table, Ref):
            return {}
        if name.startswith("embedding") and isinstance(args[1], Ref):
            return {args[1]: self._length(table, 0)}
        if name in _INDEX_BY_DIMENSION and isinstance(args[2], Ref) and isinstance(args[1], int):
            return {args[2]: self._length(table, args[1])}
        if name in ("index", "index_put") and isinstance(args[1], tuple):
            pairs = enumerate(args[1])
            return {ref: self._length(table, position) for position, ref in pairs if isinstance(ref, Ref)}
        return {}

    def _length(self, table: Ref, dimension: int) -> int:
        kind = self.graph.value_type(table)
        return evaluate(kind.shape[dimension], self.sizes) if isinstance(kind, TensorType) and kind.shape else 1


_NUMBERS = {"int": int, "float": float, "bool": bool}
