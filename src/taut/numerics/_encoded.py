"""An encoded tensor: packed buffers, views of what they hold, and the way back to numbers."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from taut.errors import ArgumentError
from taut.numerics._format import Format, Geometry
from taut.numerics._layout import Parts, decode_parts, to_buffers, to_parts


@dataclass(frozen=True)
class Encoded:
    """A tensor in a number format.

    Attributes:
        format: the format.
        shape: of the tensor that it stands for.
        buffers: by name and in the order of the operators, `(rows, bytes)` uint8; `(1, bytes)` where the tensor has
            one scale for all rows. Together `format.nbytes(shape)` bytes.

    Raises:
        ArgumentError: a buffer is missing, or has another shape or dtype than the format asks for.
    """

    format: Format
    shape: tuple[int, ...]
    buffers: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        expected = self.format.buffer_shapes(self.shape)
        if list(self.buffers) != list(expected):
            raise ArgumentError(
                "buffers", list(self.buffers), expected=f"{list(expected)} for {self.format.name}, in this order"
            )
        for name, tensor in self.buffers.items():
            if tensor.dtype != torch.uint8 or tuple(tensor.shape) != expected[name]:
                raise ArgumentError(
                    f"buffers[{name!r}]",
                    f"{tuple(tensor.shape)} {tensor.dtype}",
                    expected=f"{expected[name]} uint8 for {self.format.name} and shape {self.shape}",
                )
        object.__setattr__(self, "buffers", types.MappingProxyType(dict(self.buffers)))

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(tensor.numel() for tensor in self.buffers.values())

    def codes(self) -> Tensor:
        """Element codes, of the tensor's shape: int8, or uint8 for unsigned integers and float patterns."""
        return self._visible(self._parts().codes)

    def scale_codes(self) -> Tensor | None:
        """Stored scales, `(*shape[:-1], vectors)`: uint8 (int16 above 8 bits), float16 or float32; None without."""
        scales = self._parts().scales
        return None if scales is None else self._by_vector(scales)

    def gammas(self) -> Tensor | None:
        """Coarse scales as float32: `(rows,)`, `(1,)` for the tensor, `(rows, blocks)` for ggml's; None without."""
        gammas = self._parts().gammas
        if gammas is None:
            return None
        return gammas.float() if self.format.layout == "blocks" else gammas.flatten()

    def zero_points(self) -> Tensor | None:
        """Zero points, `(rows,)` or `(1,)` uint8; None without."""
        zero_points = self._parts().zero_points
        return None if zero_points is None else zero_points.flatten()

    def minima(self) -> Tensor | None:
        """Stored minima, as `scale_codes()`; None without."""
        minima = self._parts().minima
        return None if minima is None else self._by_vector(minima)

    def with_codes(self, codes: Tensor) -> Encoded:
        """The same scales with other element codes.

        Args:
            codes: as `codes()` gives them.

        Raises:
            ArgumentError: another shape or dtype, or a code that does not fit its bits.
        """
        present = self.codes()
        if codes.shape != present.shape or codes.dtype != present.dtype:
            raise ArgumentError(
                "codes",
                f"{tuple(codes.shape)} {codes.dtype}",
                expected=f"{tuple(present.shape)} {present.dtype}",
            )
        elements = self.format.elements
        if not torch.equal(elements.from_stored(elements.to_stored(codes)), codes):
            raise ArgumentError("codes", "a code out of range", expected=f"codes of {elements.bits} bits")
        parts = self._parts()
        replaced = parts.codes.clone()
        self._visible(replaced).copy_(codes)
        return from_parts(self.format, self.shape, dataclasses.replace(parts, codes=replaced))

    def decode(self) -> Tensor:
        """The numbers that the codes stand for, float32, of the tensor's shape."""
        sizes = Geometry.of(self.shape, self.format)
        return decode_parts(self._parts(), self.format, sizes).view(self.shape)

    def _parts(self) -> Parts:
        return to_parts(self.buffers, self.format, Geometry.of(self.shape, self.format))

    def _by_vector(self, x: Tensor) -> Tensor:
        return x.reshape(*self.shape[:-1], Geometry.of(self.shape, self.format).vectors)

    def _visible(self, codes: Tensor) -> Tensor:
        """A view of `(rows, columns)` codes, without the rest of ggml's last blocks, in the tensor's shape."""
        sizes = Geometry.of(self.shape, self.format)
        if self.format.layout == "planes":
            return codes.view(self.shape)
        whole = codes.view(sizes.rows, sizes.slices, sizes.vectors * sizes.vector)[:, :, : sizes.length]
        return whole.unflatten(1, self.shape[1:-1]) if len(self.shape) > 2 else whole.view(self.shape)


def from_parts(number_format: Format, shape: tuple[int, ...], parts: Parts) -> Encoded:
    """Pack codes and scales."""
    return Encoded(number_format, shape, to_buffers(parts, number_format))
