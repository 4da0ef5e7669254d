"""Element grids: the values that one stored code can stand for."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class IntegerElements:
    """Integers `low` to `high`, times `2**-fraction_bits`; a code is stored as `(code + offset)` modulo `2**bits`.

    Attributes:
        bits: width of a stored code, 2 to 8.
        low: the least code in use.
        high: the largest code in use.
        offset: what is added before storing; 0 stores two's complement.
        fraction_bits: binary places of the value behind the point.
    """

    bits: int
    low: int
    high: int
    offset: int = 0
    fraction_bits: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Of unpacked codes."""
        return torch.int8 if self.low < 0 else torch.uint8

    @property
    def highest(self) -> float:
        """The largest value."""
        return self.high * 2.0**-self.fraction_bits

    @property
    def highest_exponent(self) -> int:
        """The exponent of the largest power of two among the values."""
        return self.high.bit_length() - 1 - self.fraction_bits

    def round_(self, x: Tensor) -> Tensor:
        """Replace each number by the nearest value, ties to the even code, in place."""
        if self.fraction_bits:
            return x.mul_(2.0**self.fraction_bits).round_().clamp_(self.low, self.high).mul_(2.0**-self.fraction_bits)
        return x.round_().clamp_(self.low, self.high)

    def codes(self, values: Tensor) -> Tensor:
        """Codes of values that lie on the grid."""
        return (values * 2.0**self.fraction_bits if self.fraction_bits else values).to(self.dtype)

    def values(self, codes: Tensor) -> Tensor:
        """Float32 values of codes."""
        values = codes.to(torch.float32)
        return values.mul_(2.0**-self.fraction_bits) if self.fraction_bits else values

    def to_stored(self, codes: Tensor) -> Tensor:
        """Codes as uint8 of `bits` bits."""
        mask = (1 << self.bits) - 1
        return (codes + self.offset if self.offset else codes).to(torch.uint8) & mask

    def from_stored(self, stored: Tensor) -> Tensor:
        """The inverse of `to_stored`."""
        if self.low >= 0:
            return stored
        if self.offset:
            return (stored - self.offset).view(torch.int8)  # wraps modulo 256
        shift = 8 - self.bits
        return (stored << shift).view(torch.int8) >> shift  # the arithmetic shift copies the sign


@dataclass(frozen=True)
class FloatElements:
    """Small floating-point numbers with a sign, subnormals and no infinity; codes are their bit patterns.

    Attributes:
        name: e.g. `e2m1`.
        exponent_bits: width of the exponent.
        mantissa_bits: width of the stored mantissa.
        bias: of the exponent.
        highest: the largest finite value, to which larger ones saturate.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    highest: float

    @property
    def bits(self) -> int:
        """Width of a stored code."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def dtype(self) -> torch.dtype:
        """Of unpacked codes."""
        return torch.uint8

    @property
    def highest_exponent(self) -> int:
        """The exponent of the largest power of two among the values."""
        return int(self.highest).bit_length() - 1

    def round_(self, x: Tensor) -> Tensor:
        """Replace each number by the nearest value, ties to the even code, in place; keeps the sign of zero."""
        exponents = ((x.view(torch.int32) >> 23) & 0xFF).clamp_(min=128 - self.bias)
        step = ((exponents - self.mantissa_bits) << 23).view(torch.float32)
        return x.div_(step).round_().mul_(step).clamp_(-self.highest, self.highest)

    def codes(self, values: Tensor) -> Tensor:
        """Codes of values that lie on the grid."""
        magnitudes = torch.bucketize(values.abs(), _magnitudes(self, values.device), out_int32=True)
        return (magnitudes + (torch.signbit(values).to(torch.int32) << (self.bits - 1))).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """Float32 values of codes."""
        return _table(self, codes.device)[codes.to(torch.int32)]

    def to_stored(self, codes: Tensor) -> Tensor:
        """Codes as uint8 of `bits` bits."""
        return codes

    def from_stored(self, stored: Tensor) -> Tensor:
        """The inverse of `to_stored`."""
        return stored


Elements = IntegerElements | FloatElements


@functools.cache
def _table(elements: FloatElements, device: torch.device) -> Tensor:
    """Value of each code; patterns that stand for NaN or infinity give NaN."""
    with torch.inference_mode(False):
        codes = torch.arange(1 << (elements.bits - 1), dtype=torch.float64)
        exponents = torch.floor(codes / 2**elements.mantissa_bits)
        fractions = codes / 2**elements.mantissa_bits - exponents
        normal = (1 + fractions) * 2.0 ** (exponents - elements.bias)
        values = torch.where(exponents == 0, fractions * 2.0 ** (1 - elements.bias), normal)
        values[values > elements.highest] = torch.nan
        return torch.cat([values, -values]).to(device=device, dtype=torch.float32)


@functools.cache
def _magnitudes(elements: FloatElements, device: torch.device) -> Tensor:
    """The finite magnitudes in rising order; a magnitude's place is its code."""
    half = _table(elements, device)[: 1 << (elements.bits - 1)]
    return half[half.isfinite()]


def signed(bits: int) -> IntegerElements:
    """Signed integers of a width in the narrow range, symmetric about zero."""
    high = 2 ** (bits - 1) - 1
    return IntegerElements(bits, -high, high)


def unsigned(bits: int) -> IntegerElements:
    """Unsigned integers of a width."""
    return IntegerElements(bits, 0, 2**bits - 1)


E2M1 = FloatElements("e2m1", 2, 1, 1, 6.0)
E2M3 = FloatElements("e2m3", 2, 3, 1, 7.5)
E3M2 = FloatElements("e3m2", 3, 2, 3, 28.0)
E4M3 = FloatElements("e4m3", 4, 3, 7, 448.0)
E5M2 = FloatElements("e5m2", 5, 2, 15, 57344.0)
