"""What stands behind an argument while a graph becomes an ONNX model, and the element types of both."""

from __future__ import annotations

import dataclasses

import torch

from taut.graph import ScalarType, TensorType, ValueType

_SCALARS = {"int": torch.int64, "float": torch.float64, "bool": torch.bool}

# Numbers of onnx.TensorProto.DataType.
ELEMENT_TYPES: dict[torch.dtype, int] = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.uint16: 4,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.uint32: 12,
    torch.uint64: 13,
    torch.bfloat16: 16,
    torch.float8_e4m3fn: 17,
    torch.float8_e5m2: 19,
}
UINT4, INT4 = 21, 22


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph as converters see it.

    Attributes:
        name: its name in the model; empty while nothing has used it.
        type: its type in the graph; a scalar is a tensor without dimensions in the model.
        tensor: the tensor behind a constant, else None.
        encoded: the arguments of `taut::decode` that make it, else None.
    """

    name: str
    type: ValueType
    tensor: torch.Tensor | None = None
    encoded: EncodedWeight | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The element type in the model."""
        return self.type.dtype if isinstance(self.type, TensorType) else _SCALARS[self.type.kind]

    @property
    def shape(self) -> tuple[object, ...]:
        """One entry a dimension: an integer or a symbolic expression."""
        return self.type.shape if isinstance(self.type, TensorType) else ()

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def axis(self, dimension: int) -> int:
        """A dimension counted from the front."""
        return dimension % self.rank if self.rank else 0


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedWeight:
    """A tensor in a number format of `taut.numerics`: its buffers in the format's order, and its shape."""

    buffers: tuple[torch.Tensor, ...]
    format: str
    shape: tuple[int, ...]


def is_scalar(value: object) -> bool:
    """Whether an argument is a number rather than a tensor."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, Value) and isinstance(value.type, ScalarType))
