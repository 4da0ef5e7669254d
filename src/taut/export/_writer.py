"""Collects the operations and tensors of an ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from taut.export._values import ELEMENT_TYPES, INT4, UINT4, Value, is_scalar

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

    from taut.graph import Node

Operand: TypeAlias = "Value | str | None"
"""An input of an operation: a value, the name of a result, or None for an optional input that is left out."""

END = 2**63 - 1


class Writer:
    """Operations in order, and the tensors that they use.

    Attributes:
        node: the graph's node that is being written.
        operations: what has been written, of the model or of the innermost branch.
        tensors: the initialisers by name.
        domains: the operator sets used beside ONNX's own.
        depth: how many bodies of control flow surround what is written.
    """

    def __init__(self) -> None:
        self.node: Node
        self.operations: list[NodeProto] = []
        self.tensors: dict[str, TensorProto] = {}
        self.domains: set[str] = set()
        self.depth = 0
        self._written: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._count = 0
        self._reserved: set[str] = set()
        self._constants: dict[tuple[object, ...], str] = {}
        self._initialisers: dict[int, str] = {}
        self._alive: list[torch.Tensor] = []

    def emit(self, op: str, *inputs: Operand, domain: str = "", **attributes: Any) -> str:
        """Append an operation with one result; returns its name."""
        return self.emit_several(op, inputs, 1, domain=domain, **attributes)[0]

    def emit_several(
        self, op: str, inputs: Sequence[Operand], results: int, *, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Append an operation; returns the names of its results."""
        from onnx import helper

        names = ["" if item is None else self.name(item) for item in inputs]
        while names and not names[-1]:
            names.pop()
        outputs = tuple(self.fresh(op) for _ in range(results))
        given = {key: value for key, value in attributes.items() if value is not None}
        self.operations.append(helper.make_node(op, names, outputs, outputs[0], domain=domain, **given))
        if domain:
            self.domains.add(domain)
        return outputs

    def once(self, key: tuple[object, ...], write: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        """The names that `write` returned for this key before, or now; what stands within a body is written again."""
        if key in self._written:
            return self._written[key]
        made = write()
        if not self.depth:
            self._written[key] = made
        return made

    def fresh(self, stem: str) -> str:
        """A name that nothing has yet."""
        self._count += 1
        return f"{stem}_{self._count}" if f"{stem}_{self._count}" not in self._reserved else self.fresh(stem)

    def reserve(self, name: str) -> str:
        """A name of an input or output: the one wished for, or one like it where that is taken."""
        while name in self._reserved:
            name = f"{name}_"
        self._reserved.add(name)
        return name

    def name(self, operand: Value | str) -> str:
        """The name of an operand; a constant becomes an initialiser when it is first used."""
        if isinstance(operand, str):
            return operand
        if operand.name:
            return operand.name
        if operand.encoded is not None:
            from taut.export._encoded import write_decoded

            return write_decoded(self, operand.encoded)
        assert operand.tensor is not None
        return self.initialiser(operand.tensor)

    def initialiser(self, tensor: torch.Tensor, stem: str = "weight") -> str:
        """A tensor of the model's own; the same object is stored once."""
        if id(tensor) not in self._initialisers:
            self._alive.append(tensor)  # so that no other tensor takes its identity
            values = tensor.detach().cpu().contiguous()
            raw = values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b""
            self._initialisers[id(tensor)] = self._store(stem, ELEMENT_TYPES[tensor.dtype], list(tensor.shape), raw)
        return self._initialisers[id(tensor)]

    def transposed(self, matrix: torch.Tensor) -> str:
        """A constant matrix (N, K) stored as (K, N); the same object is stored once."""
        key = ("transposed", id(matrix))
        if key not in self._constants:
            self._alive.append(matrix)
            self._constants[key] = self.initialiser(matrix.t().contiguous())
        return self._constants[key]

    def nibbles(self, codes: torch.Tensor) -> str:
        """Integers of any shape, stored as 4-bit elements: signed from int8, unsigned from uint8."""
        flat = codes.detach().cpu().contiguous().reshape(-1).view(torch.uint8) & 15
        flat = torch.nn.functional.pad(flat, (0, flat.numel() % 2))
        raw = (flat[::2] | flat[1::2] << 4).numpy().tobytes()
        return self._store("codes", INT4 if codes.dtype == torch.int8 else UINT4, list(codes.shape), raw)

    def _store(self, stem: str, data_type: int, shape: list[int], raw: bytes) -> str:
        from onnx import TensorProto

        name = self.fresh(stem)
        self.tensors[name] = TensorProto(name=name, data_type=data_type, dims=shape, raw_data=raw)
        return name

    def number(self, value: float, dtype: torch.dtype) -> str:
        """A constant without dimensions."""
        key = (repr(value), dtype)
        if key not in self._constants:
            self._constants[key] = self.initialiser(torch.tensor(value, dtype=dtype), "number")
        return self._constants[key]

    def integers(self, values: Sequence[int]) -> str:
        """A constant list of int64."""
        key = ("list", *values)
        if key not in self._constants:
            self._constants[key] = self.initialiser(torch.tensor(list(values), dtype=torch.int64), "integers")
        return self._constants[key]

    def floats(self, values: Sequence[float]) -> str:
        """A constant list of float32."""
        return self.initialiser(torch.tensor(list(values), dtype=torch.float32), "floats")

    def sizes(self, items: Sequence[Any]) -> str:
        """A list of int64 of integers and scalar values, known or not."""
        if all(isinstance(item, int) for item in items):
            return self.integers(items)
        parts = [
            self.integers([item]) if isinstance(item, int) else self.emit("Unsqueeze", item, self.integers([0]))
            for item in items
        ]
        return parts[0] if len(parts) == 1 else self.emit("Concat", *parts, axis=0)

    def scalar(self, value: Any, dtype: torch.dtype) -> str:
        """A number, known or not, as a tensor without dimensions of that element type."""
        if isinstance(value, (bool, int, float)):
            return self.number(value, dtype)
        return self.cast(value, dtype)

    def cast(self, operand: Operand, dtype: torch.dtype, of: torch.dtype | None = None) -> str:
        """The operand in that element type; `of` is that of a result by name, where it may be right already."""
        assert operand is not None
        present = operand.dtype if isinstance(operand, Value) else of
        return self.name(operand) if present == dtype else self.emit("Cast", operand, to=ELEMENT_TYPES[dtype])

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """An operand of arithmetic in that element type: a tensor is cast, a number becomes a constant."""
        return self.scalar(value, dtype) if is_scalar(value) else self.cast(value, dtype)

    def dtype(self, output: int = 0) -> torch.dtype:
        """The element type of a result of the node that is being written."""
        return Value("", self.node.outputs[output]).dtype

    def shape_of(self, value: Value) -> str:
        """The sizes of a value as a list of int64."""
        if all(isinstance(size, int) for size in value.shape):
            return self.integers([int(size) for size in value.shape])  # pyright: ignore[reportArgumentType]
        return self.emit("Shape", value)

    def size(self, value: Value, dimension: int) -> str:
        """One size of a value, as a list with one int64."""
        axis = value.axis(dimension)
        size = value.shape[axis]
        return self.integers([size]) if isinstance(size, int) else self.emit("Shape", value, start=axis, end=axis + 1)
