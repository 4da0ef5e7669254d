"""What a number format is: elements, vectors, scales, coarse scale; and its exact size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from taut.errors import ArgumentError
from taut.numerics._bits import packed_bytes
from taut.numerics._elements import Elements

ScaleKind = Literal["integer", "float16", "float32", "e8m0", "e4m3"]
_SCALE_BITS = {"float16": 16, "float32": 32, "e8m0": 8, "e4m3": 8}


@dataclass(frozen=True)
class Scales:
    """The grid of the scales, one a vector.

    Attributes:
        kind: integers (times the coarse scale), real numbers, powers of two (E8M0), or E4M3.
        bits: width of a stored scale.
    """

    kind: ScaleKind
    bits: int

    @classmethod
    def of(cls, kind: ScaleKind) -> Scales:
        """A grid whose kind fixes its width."""
        return cls(kind, _SCALE_BITS[kind])


@dataclass(frozen=True)
class Coarse:
    """The coarse scale `gamma` that the scales of many vectors share.

    Attributes:
        per: one for each row (dimension 0), for the whole tensor, or for each run of `vectors` vectors.
        bits: 32 for float32, 16 for float16.
        vectors: vectors that share it where `per` is `"block"`.
    """

    per: Literal["row", "tensor", "block"]
    bits: int = 32
    vectors: int = 0


@dataclass(frozen=True)
class Format:
    """A number format: what a tensor is stored as, to the byte.

    A tensor is encoded along its last dimension, in vectors of `vector` elements; a last vector may be shorter.
    Dimension 0 is the row: the output channel of a weight, the token of an activation, the entry of an embedding.

    Attributes:
        name: as `get_format` takes it.
        title: one line for people.
        elements: the grid of the elements.
        vector: elements that share a scale; None where only the coarse scale exists.
        scales: the grid of the scales, one a vector; None where only the coarse scale exists.
        coarse: the scale above the scales, or None.
        offset: `"zero_point"`: value = (code - zero point) * scale, with a zero point for each scale;
            `"minimum"`: value = code * scale - minimum, with a minimum for each vector.
        chooser: how scales are chosen unless `encode` is told otherwise.
        dynamic_chooser: how `taut::fake_quantise` chooses them, at run time.
        layout: `"planes"` keeps codes, scales and coarse scales in buffers of their own; `"blocks"` is ggml's layout.
    """

    name: str
    title: str
    elements: Elements
    vector: int | None = None
    scales: Scales | None = None
    coarse: Coarse | None = None
    offset: Literal["none", "zero_point", "minimum"] = "none"
    chooser: str = "max"
    dynamic_chooser: str = "max"
    layout: Literal["planes", "blocks"] = "planes"

    @property
    def nominal_bits(self) -> float:
        """Bits an element without the coarse scales of rows or tensors and without tails: `N + M / V`."""
        bits: float = self.elements.bits
        if self.vector and self.scales:
            per_vector = self.scales.bits * (2 if self.offset == "minimum" else 1)
            if self.coarse and self.coarse.per == "block":
                per_vector += self.coarse.bits * (2 if self.offset == "minimum" else 1) / self.coarse.vectors
            bits += per_vector / self.vector
        return bits

    @property
    def block_vectors(self) -> int:
        """Vectors that share a coarse scale where it belongs to a block; otherwise 1."""
        return self.coarse.vectors if self.coarse is not None and self.coarse.per == "block" else 1

    @property
    def block_bytes(self) -> int:
        """Bytes of a block where the layout is ggml's."""
        return int(self.nominal_bits * (self.vector or 0) * self.block_vectors) // 8

    @property
    def is_shared(self) -> bool:
        """Whether all rows share the coarse scale."""
        return self.coarse is not None and self.coarse.per == "tensor"

    def buffer_shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
        """Names and shapes `(rows, bytes)` of the buffers that hold a tensor, in the order of the operators.

        Args:
            shape: of the tensor, at least one dimension.

        Raises:
            ArgumentError: the tensor has no dimension.
        """
        sizes = Geometry.of(shape, self)
        rows = sizes.rows
        if self.layout == "blocks":
            return {"blocks": (rows, sizes.groups // self.block_vectors * self.block_bytes)}
        buffers = {"codes": (rows, packed_bytes(sizes.columns, self.elements.bits))}
        if self.scales:
            buffers["scales"] = (rows, packed_bytes(sizes.groups, self.scales.bits))
        if self.offset == "zero_point":
            buffers["zero_points"] = (1 if self.is_shared else rows, packed_bytes(1, self.elements.bits))
        if self.coarse:
            buffers["gammas"] = (1 if self.is_shared else rows, self.coarse.bits // 8)
        return buffers

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes that a tensor of this shape takes: exactly what its buffers hold.

        Raises:
            ArgumentError: the tensor has no dimension.
        """
        return sum(rows * width for rows, width in self.buffer_shapes(shape).values())

    def bits_per_element(self, shape: tuple[int, ...]) -> float:
        """Stored bits, scales of every level included, over elements; 0 for a tensor without elements.

        Raises:
            ArgumentError: the tensor has no dimension.
        """
        count = math.prod(shape)
        return 8 * self.nbytes(shape) / count if count else 0.0


@dataclass(frozen=True)
class Geometry:
    """How a shape is cut: `rows` rows of `slices` runs of `length` elements, each run in vectors of its own.

    Attributes:
        rows: entries of dimension 0; 1 for a one-dimensional tensor.
        slices: product of the dimensions between the first and the last.
        length: entries of the last dimension.
        vector: elements a vector.
        vectors: vectors a run.
    """

    rows: int
    slices: int
    length: int
    vector: int
    vectors: int

    @classmethod
    def of(cls, shape: tuple[int, ...], number_format: Format) -> Geometry:
        """The cut of a shape in a format.

        Raises:
            ArgumentError: the shape has no dimension or a negative one.
        """
        if not shape or min(shape) < 0:
            raise ArgumentError("shape", shape, expected="at least one dimension: vectors run along the last")
        length = shape[-1]
        rows, slices = (shape[0], math.prod(shape[1:-1])) if len(shape) > 1 else (1, 1)
        if number_format.vector is None:  # one run a row, whatever its dimensions
            return cls(rows, 1, slices * length, max(slices * length, 1), 1)
        run = number_format.vector * number_format.block_vectors
        return cls(rows, slices, length, number_format.vector, -(-length // run) * run // number_format.vector)

    def to_blocks(self, rows: Tensor) -> Tensor:
        """`(rows, columns)` as `(rows, vectors, elements)`, short vectors filled with zeros."""
        count, whole = rows.shape[0], self.vectors * self.vector
        if whole != self.length:
            runs = rows.view(count, self.slices, self.length)
            rows = torch.nn.functional.pad(runs, (0, whole - self.length))
        return rows.reshape(count, self.groups, self.vector)

    def to_rows(self, blocks: Tensor) -> Tensor:
        """The inverse of `to_blocks`."""
        count, whole = blocks.shape[0], self.vectors * self.vector
        runs = blocks.reshape(count, self.slices, whole)
        return runs[:, :, : self.length].reshape(count, self.columns)

    @property
    def columns(self) -> int:
        """Elements a row."""
        return self.slices * self.length

    @property
    def groups(self) -> int:
        """Vectors a row."""
        return self.slices * self.vectors
