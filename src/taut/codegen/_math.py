"""Elementary functions as vector arithmetic: no calls into the C library, NaN and infinity pass as in torch.

The polynomials are minimax fits of our own (Lawson iteration in double precision). Halide lets LLVM assume that no
NaN occurs, hence the tests for it look at the bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import halide as hl

_LN2 = float.fromhex("0x1.62e430p-1")
_LN2_HIGH = float.fromhex("0x1.62e4p-1")  # few enough bits that its product with an exponent is exact
_LN2_LOW = math.log(2.0) - _LN2_HIGH
_EXP = ("0x1.fffffcp-2", "0x1.555492p-3", "0x1.5558f2p-5", "0x1.123a2p-7", "0x1.6a23cep-10")
_LOG = (
    "0x1.555548p-2",
    "-0x1.000006p-2",
    "0x1.99a4b6p-3",
    "-0x1.555c4ep-3",
    "0x1.233768p-3",
    "-0x1.fc2208p-4",
    "0x1.e6f06ap-4",
    "-0x1.de3c16p-4",
    "0x1.1457a6p-4",
)
_TANH = ("-0x1.555554p-2", "0x1.11106cp-3", "-0x1.b9ef7cp-5", "0x1.6394dap-6", "-0x1.0c2146p-7", "0x1.197b7cp-9")
_ERF = (
    "0x1.20dd74p+0",
    "-0x1.81273ep-2",
    "0x1.ce2cf8p-4",
    "-0x1.b7f90ep-6",
    "0x1.5405b2p-8",
    "-0x1.a3f7p-11",
    "0x1.496a32p-14",
)
# erfc(x) exp(x^2) as a polynomial in 1 / (1 + 0.4 x) for 0 <= x <= 10.
_ERFC = (
    "0x1.293738p-14",
    "0x1.cb009p-3",
    "0x1.ebf3ecp-3",
    "0x1.0db11ap-3",
    "0x1.a85b3ap-2",
    "-0x1.771ea4p-2",
    "0x1.550f3ep-1",
    "-0x1.861de4p-2",
    "0x1.2175b6p-4",
)
# erf(x / sqrt(2)) / 2 for |x| <= 5.2 as x times a polynomial in 2 (x / 5.2)^2 - 1, absolute error below 1e-7.
_NORMAL_LIMIT = 5.2
_NORMAL = (
    "0x1.166cf8p-3",
    "-0x1.157a62p-4",
    "0x1.99cd06p-5",
    "-0x1.471ae8p-5",
    "0x1.060fcep-5",
    "-0x1.951264p-6",
    "0x1.262bdcp-6",
    "-0x1.99c4c0p-7",
    "0x1.187e20p-7",
    "-0x1.39da0ap-8",
    "0x1.d7e4e6p-10",
    "-0x1.403774p-10",
    "0x1.4c8814p-10",
    "-0x1.f8a4b2p-12",
)
_SIN = ("-0x1.555556p-3", "0x1.111108p-7", "-0x1.a00f94p-13", "0x1.6cd5ecp-19")
_COS = ("0x1.555556p-5", "-0x1.6c16b8p-10", "0x1.a010d6p-16", "-0x1.241ca8p-22")


def is_nan(x: hl.Expr) -> hl.Expr:
    """Whether a float is NaN."""
    return (_bits(x) & 0x7FFFFFFF) > 0x7F800000


def exp(x: hl.Expr, *, at_most_one: bool = False) -> hl.Expr:
    """The exponential, below 4 ulp; a result below the normal numbers becomes 0.

    Args:
        x: any float, or one that is not positive with `at_most_one`, which saves work.
        at_most_one: see `x`.
    """
    n = hl.round(x * hl.f32(1.0 / math.log(2.0)))
    # What the rounded constant lacks comes back last: LLVM would join two products with n in one sum.
    r = x - n * hl.f32(_LN2)
    value = hl.f32(1.0) + (r + (r * r * _polynomial(r, _EXP) + n * hl.f32(_LN2 - math.log(2.0))))
    # NaN passes: it converts to an integer whose lowest bits are 0.
    scaled = _float(_bits(value) + (hl.cast(hl.Int(32), n) << 23))
    small = hl.select(_between(x, 0xC2AEAC50, 0xFF800000), hl.f32(0.0), scaled)
    return small if at_most_one else hl.select(_between(x, 0x42B17218, 0x7F800000), _constant(0x7F800000), small)


def log(x: hl.Expr) -> hl.Expr:
    """The natural logarithm, below 2 ulp: -inf at 0 and NaN below."""
    tiny = x < hl.f32(2.0**-126)
    scaled = hl.select(tiny, x * hl.f32(2.0**23), x)
    # The mantissa goes to [sqrt(1/2), sqrt(2)).
    shifted = _bits(scaled) - 0x3F3504F3
    exponent = (shifted >> 23) - hl.select(tiny, 23, 0)
    z = _float((shifted & 0x7FFFFF) + 0x3F3504F3) - hl.f32(1.0)
    n = hl.cast(hl.Float(32), exponent)
    tail = z * z * (z * _polynomial(z, _LOG) - hl.f32(0.5)) + n * hl.f32(_LN2_LOW)
    value = n * hl.f32(_LN2_HIGH) + (z + tail)
    bits = _bits(x)
    magnitude = bits & 0x7FFFFFFF
    value = hl.select((bits == 0x7F800000) | (magnitude > 0x7F800000), x, bits < 0, _constant(0x7FC00000), value)
    return hl.select(magnitude == 0, _constant(-0x800000), value)


def tanh(x: hl.Expr) -> hl.Expr:
    """The hyperbolic tangent, below 3 ulp."""
    magnitude = hl.abs(x)
    square = x * x
    small = x + x * (square * _polynomial(square, _TANH))
    large = hl.f32(1.0) - hl.f32(2.0) / (exp(magnitude + magnitude) + hl.f32(1.0))
    signed = _float(_bits(large) | (_bits(x) & hl.i32(-0x80000000)))
    return hl.select(is_nan(x), x, magnitude < hl.f32(0.625), small, signed)


def sigmoid(x: hl.Expr) -> hl.Expr:
    """The logistic function, below 4 ulp."""
    z = exp(-hl.abs(x), at_most_one=True)
    return hl.select(is_nan(x), x, hl.select(x < hl.f32(0.0), z, hl.f32(1.0)) / (hl.f32(1.0) + z))


def erf(x: hl.Expr) -> hl.Expr:
    """The error function, below 4 ulp."""
    magnitude = hl.abs(x)
    t = hl.f32(1.0) / (hl.f32(1.0) + hl.f32(0.4) * magnitude)
    complement = _polynomial(t, _ERFC) * exp(-x * x, at_most_one=True)
    signed = _float(_bits(hl.f32(1.0) - complement) | (_bits(x) & hl.i32(-0x80000000)))
    small = x * _polynomial(x * x, _ERF)
    limit = _float((_bits(x) & hl.i32(-0x80000000)) | 0x3F800000)
    return hl.select(is_nan(x), x, magnitude < hl.f32(1.0), small, magnitude < hl.f32(9.0), signed, limit)


def gelu(x: hl.Expr) -> hl.Expr:
    """`x (1 + erf(x / sqrt(2))) / 2` with an absolute error below `4e-7 |x|`."""
    return hl.select(is_nan(x), x, x * (hl.f32(0.5) + _half_normal(x)))


def gelu_tanh(x: hl.Expr) -> hl.Expr:
    """The approximation of gelu by tanh, through the logistic function."""
    limited = _clamp(x, hl.f32(-1e12), hl.f32(1e12))
    inner = hl.f32(2.0 * math.sqrt(2.0 / math.pi)) * (limited + hl.f32(0.044715) * limited * limited * limited)
    return hl.select(is_nan(x), x, x * sigmoid(inner))


def silu(x: hl.Expr) -> hl.Expr:
    """`x sigmoid(x)`."""
    return x * sigmoid(x)


def relu(x: hl.Expr) -> hl.Expr:
    """0 for what is below 0; NaN stays."""
    return hl.select(_between(x, 0x80000000, 0xFF800000), hl.f32(0.0), x)


def sin(x: hl.Expr) -> hl.Expr:
    """The sine for magnitudes up to 1e8; NaN at infinity."""
    return _trigonometric(x, 0)


def cos(x: hl.Expr) -> hl.Expr:
    """The cosine for magnitudes up to 1e8; NaN at infinity."""
    return _trigonometric(x, 1)


def power(x: hl.Expr, y: hl.Expr) -> hl.Expr:
    """`x` to the `y`; of a negative `x` only for integers `y`, else NaN."""
    value = exp(y * log(hl.abs(x)))
    whole = hl.floor(y) == y
    odd = hl.abs(y - hl.f32(2.0) * hl.floor(y * hl.f32(0.5))) == hl.f32(1.0)
    negative = hl.select(whole, hl.select(odd, -value, value), _constant(0x7FC00000))
    return hl.select(y == hl.f32(0.0), hl.f32(1.0), x < hl.f32(0.0), negative, value)


def maximum(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    """The larger; NaN if either is."""
    return _propagating(hl.max, a, b)


def minimum(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    """The smaller; NaN if either is."""
    return _propagating(hl.min, a, b)


def _clamp(x: hl.Expr, low: hl.Expr, high: hl.Expr) -> hl.Expr:
    # Not hl.clamp: Halide tracks bounds through that, which takes minutes for a polynomial of it. LLVM sees the same.
    return hl.select(x < low, low, x > high, high, x)


def _propagating(choose: Callable[[hl.Expr, hl.Expr], hl.Expr], a: hl.Expr, b: hl.Expr) -> hl.Expr:
    value = choose(a, b)
    if not value.type().is_float():
        return value
    return hl.select(is_nan(a), a, is_nan(b), b, value)


def _half_normal(x: hl.Expr) -> hl.Expr:
    limited = _clamp(x, hl.f32(-_NORMAL_LIMIT), hl.f32(_NORMAL_LIMIT))
    u = limited * limited * hl.f32(2.0 / _NORMAL_LIMIT**2) - hl.f32(1.0)
    return _clamp(limited * _polynomial(u, _NORMAL), hl.f32(-0.5), hl.f32(0.5))


def _trigonometric(x: hl.Expr, quarter: int) -> hl.Expr:
    limited = _clamp(x, hl.f32(-1e9), hl.f32(1e9))
    n = hl.round(limited * hl.f32(2.0 / math.pi))
    # LLVM may join the constants of a difference taken in parts; in double precision there is one only.
    r = hl.cast(hl.Float(32), hl.cast(hl.Float(64), limited) - hl.cast(hl.Float(64), n) * hl.f64(math.pi / 2.0))
    square = r * r
    sine = r + r * (square * _polynomial(square, _SIN))
    cosine = hl.f32(1.0) - hl.f32(0.5) * square + square * square * _polynomial(square, _COS)
    turn = hl.cast(hl.Int(32), n) + quarter
    value = hl.select((turn & 1) != 0, cosine, sine)
    value = hl.select((turn & 2) != 0, -value, value)
    return hl.select((_bits(x) & 0x7FFFFFFF) >= 0x7F800000, _constant(0x7FC00000), value)


def _polynomial(x: hl.Expr, coefficients: Sequence[str]) -> hl.Expr:
    value = hl.f32(float.fromhex(coefficients[-1]))
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + hl.f32(float.fromhex(coefficient))
    return value


def _between(x: hl.Expr, low: int, high: int) -> hl.Expr:
    # Of floats with one sign, by their bits, so that NaN is none of them.
    return hl.reinterpret(hl.UInt(32), x) - hl.u32(low) <= hl.u32(high - low)


def _bits(x: hl.Expr) -> hl.Expr:
    return hl.reinterpret(hl.Int(32), x)


def _float(bits: hl.Expr) -> hl.Expr:
    return hl.reinterpret(hl.Float(32), bits)


def _constant(bits: int) -> hl.Expr:
    return hl.reinterpret(hl.Float(32), hl.i32(bits))
