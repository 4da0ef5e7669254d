"""Codes for gradients on the wire: sums at given places, signs, a few bits at random, packed indices and values."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import check_inference, check_length, check_plain
from taut.kernels._load import _native

QUANTISE_BLOCK: int = _native.quantise_block
"""Elements that share a step of `quantise_stochastic`."""

_CODED_DTYPES = (torch.bfloat16, torch.float32)

_library = torch.library.Library("taut", "FRAGMENT")
_library.define("scatter_add(Tensor(a!) dense, Tensor indices, Tensor values, float scale) -> ()")
_library.define("pack_signs(Tensor x) -> Tensor")
_library.define("unpack_majority(Tensor packed, Tensor(a!) out, float scale) -> ()")
_library.define("quantise_stochastic(Tensor x, int bits, int seed) -> (Tensor, Tensor)")
_library.define("dequantise_add(Tensor(a!) dense, Tensor codes, Tensor steps, int bits, float scale) -> ()")
_library.define("encode_indices(Tensor indices, SymInt length) -> Tensor")
_library.define("decode_indices(Tensor encoded, SymInt length) -> Tensor")
_library.define("encode_values(Tensor values) -> Tensor")
_library.define("decode_values(Tensor encoded, SymInt count, ScalarType dtype) -> Tensor")


def scatter_add(dense: Tensor, indices: Tensor, values: Tensor, scale: float = 1.0) -> None:
    """Add `scale * values` to a tensor at given places, one after the other.

    Args:
        dense: float32 of any shape, contiguous, changed in place.
        indices: `(entries,)` int32, into the flattened tensor.
        values: `(entries,)` float32 or bfloat16.
        scale: rounded to float32.

    Raises:
        KernelError: an index is outside, and the message names the first; or a tensor is not as above. Nothing is
            changed then.
    """
    _check(dense=dense, indices=indices, values=values)
    torch.ops.taut.scatter_add.default(
        dense, indices, values.float() if values.dtype == torch.bfloat16 else values, scale
    )


def pack_signs(x: Tensor) -> Tensor:
    """Pack the sign bits of a tensor, eight a byte, from the lowest bit on; the last byte is filled up with zeros.

    The bit is set where an element is negative or -0. One bit cannot say that an element is NaN: let the scale that
    travels with the signs carry it, e.g. a mean of `accumulate_moments`.

    Args:
        x: float32 of any shape, contiguous.

    Returns:
        `(ceil(elements / 8),)` uint8.

    Raises:
        KernelError: `x` is not as above.
    """
    _check(x=x)
    return torch.ops.taut.pack_signs.default(x)


def unpack_majority(packed: Tensor, length: int, scale: float = 1.0, *, out: Tensor | None = None) -> Tensor:
    """Decode the sign that most ranks voted for: `scale`, `-scale`, or 0 where the vote is split.

    Args:
        packed: `(ranks, ceil(length / 8))` uint8, contiguous, a row from `pack_signs` of each rank.
        length: number of elements.
        scale: rounded to float32.
        out: float32, `length` elements, contiguous: where to write.

    Returns:
        `out`, or a new tensor `(length,)` float32.

    Raises:
        KernelError: an argument is not as above.

    Source: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems" (2018), with majority vote.
    """
    check_length(length)
    if out is None:
        out = torch.empty(length)
    _check(packed=packed, out=out)
    if out.numel() != length:
        raise KernelError(f"out: has {out.numel()} elements", expected=f"{length}, the length")
    torch.ops.taut.unpack_majority.default(packed, out, scale)
    return out


def quantise_stochastic(x: Tensor, bits: int, seed: int) -> tuple[Tensor, Tensor]:
    """Round each element up or down at random to a multiple of its block's step, so that the mean is the element.

    Blocks have `QUANTISE_BLOCK` elements, and the step is their largest magnitude over `2^(bits - 1) - 1`. The random
    numbers, of 24 bits, depend on the seed and the position alone. A block that holds NaN or infinity decodes to NaN.

    Args:
        x: float32 of any shape, contiguous.
        bits: 2, 4 or 8 for each element.
        seed: 0 to 2^63 - 1; take another one each step and rank.

    Returns:
        Codes `(ceil(elements * bits / 8),)` uint8, the first in the low bits of a byte, and steps
        `(ceil(elements / QUANTISE_BLOCK),)` float32.

    Raises:
        KernelError: an argument is not as above.

    Source: Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding" (NeurIPS 2017),
    in the form with the maximum of a bucket.
    """
    _check(x=x)
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise KernelError(f"seed: got {seed!r}", expected="an integer from 0 to 2^63 - 1")
    return torch.ops.taut.quantise_stochastic.default(x, bits, seed)


def dequantise_add(dense: Tensor, codes: Tensor, steps: Tensor, bits: int, scale: float = 1.0) -> None:
    """Add `scale` times what `quantise_stochastic` encoded to a tensor.

    Args:
        dense: float32 of any shape, contiguous, changed in place.
        codes: uint8, from `quantise_stochastic`.
        steps: float32, from `quantise_stochastic`.
        bits: as encoded.
        scale: rounded to float32.

    Raises:
        KernelError: an argument does not fit; nothing is changed then.
    """
    _check(dense=dense, codes=codes, steps=steps)
    torch.ops.taut.dequantise_add.default(dense, codes, steps, bits, scale)


def encode_indices(indices: Tensor, length: int) -> Tensor:
    """Encode ascending indices: the gaps in Rice code, with a parameter for each block of 512.

    Evenly spread indices of 1 % of a tensor take about 8.15 bits each.

    Args:
        indices: `(entries,)` int32, ascending, 0 to `length - 1`.
        length: number of elements of the tensor they point into.

    Returns:
        `(bytes,)` uint8.

    Raises:
        KernelError: the indices are not as above, and the message names the first.

    Source: Rice, "Some Practical Universal Noiseless Coding Techniques" (1979).
    """
    _check(indices=indices)
    check_length(length)
    return torch.ops.taut.encode_indices.default(indices, length)


def decode_indices(encoded: Tensor, length: int) -> Tensor:
    """Decode what `encode_indices` returned; the bytes are not trusted.

    Args:
        encoded: `(bytes,)` uint8.
        length: number of elements of the tensor they point into.

    Returns:
        `(entries,)` int32, ascending, 0 to `length - 1`, whatever the bytes are.

    Raises:
        KernelError: the bytes are no such code.
    """
    _check(encoded=encoded)
    check_length(length)
    return torch.ops.taut.decode_indices.default(encoded, length)


def encode_values(values: Tensor) -> Tensor:
    """Encode floats of similar magnitudes, bit for bit: most exponents take 1 to 4 bits in place of 8.

    Each block of 512 chooses how many bits, and for which exponents; others are listed as they are. Normal numbers take
    about 11.2 bits a bfloat16, the largest hundredth of them about 9.1, arbitrary bits 16.

    Args:
        values: `(entries,)` bfloat16 or float32, contiguous.

    Returns:
        `(bytes,)` uint8.

    Raises:
        KernelError: the values are not as above.
    """
    _check(values=values)
    _check_coded("values", values.dtype)
    if values.ndim != 1 or not values.is_contiguous():
        raise KernelError(
            f"values: has shape {tuple(values.shape)} and strides {values.stride()}", expected="(entries,), contiguous"
        )
    return torch.ops.taut.encode_values.default(values)


def decode_values(encoded: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Decode what `encode_values` returned; the bytes are not trusted.

    Args:
        encoded: `(bytes,)` uint8.
        count: number of values.
        dtype: of the values, bfloat16 or float32.

    Returns:
        `(count,)`.

    Raises:
        KernelError: the bytes are no such code.
    """
    _check(encoded=encoded)
    _check_coded("dtype", dtype)
    if not isinstance(count, int) or not 0 <= count <= encoded.numel():  # a value takes a byte and more
        raise KernelError(f"count: got {count!r}", expected=f"an integer from 0 to {encoded.numel()}, the bytes")
    return torch.ops.taut.decode_values.default(encoded, count, dtype)


def _check_coded(name: str, dtype: torch.dtype) -> None:
    if dtype not in _CODED_DTYPES:
        raise KernelError(f"{name}: got {dtype}", expected="bfloat16 or float32")


def _check(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        check_plain(name, tensor)
        check_inference("gradient codes", tensor, None)


def _run_scatter_add(dense: Tensor, indices: Tensor, values: Tensor, scale: float) -> None:
    _native.scatter_add(dense, indices, values, scale)


def _run_pack_signs(x: Tensor) -> Tensor:
    packed = _describe_signs(x)
    _native.pack_signs(x, packed, torch.get_num_threads())
    return packed


def _run_unpack_majority(packed: Tensor, out: Tensor, scale: float) -> None:
    _native.unpack_majority(packed, scale, out, torch.get_num_threads())


def _run_quantise_stochastic(x: Tensor, bits: int, seed: int) -> tuple[Tensor, Tensor]:
    codes, steps = _describe_codes(x, bits, seed)
    _native.quantise_stochastic(x, bits, seed, codes, steps, torch.get_num_threads())
    return codes, steps


def _run_dequantise_add(dense: Tensor, codes: Tensor, steps: Tensor, bits: int, scale: float) -> None:
    _native.dequantise_add(dense, codes, steps, bits, scale, torch.get_num_threads())


def _run_encode_indices(indices: Tensor, length: int) -> Tensor:
    code = indices.new_empty(_native.index_code_bound(indices.numel()), dtype=torch.uint8)
    return code[: _native.encode_indices(indices, length, code)].clone()


def _run_decode_indices(encoded: Tensor, length: int) -> Tensor:
    indices = encoded.new_empty(_native.index_count(encoded), dtype=torch.int32)
    _native.decode_indices(encoded, length, indices)
    return indices


def _run_encode_values(values: Tensor) -> Tensor:
    code = values.new_empty(_native.value_code_bound(values.numel(), values.element_size()), dtype=torch.uint8)
    return code[: _native.encode_values(values.view(torch.uint8), values.element_size(), code)].clone()


def _run_decode_values(encoded: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    values = _describe_decoded(encoded, count, dtype)
    _native.decode_values(encoded, dtype.itemsize, values.view(torch.uint8))
    return values


def _describe_nothing(*_: object) -> None:
    pass


def _describe_signs(x: Tensor) -> Tensor:
    return x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)


def _describe_codes(x: Tensor, bits: int, seed: int) -> tuple[Tensor, Tensor]:
    codes = x.new_empty((x.numel() * bits + 7) // 8, dtype=torch.uint8)
    return codes, x.new_empty((x.numel() + QUANTISE_BLOCK - 1) // QUANTISE_BLOCK)


def _describe_decoded(encoded: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    return encoded.new_empty(count, dtype=dtype)


def _describe_dynamic(dtype: torch.dtype):
    def describe(given: Tensor, length: int = 0) -> Tensor:
        return given.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=dtype)

    return describe


for _name, _run, _describe in (
    ("scatter_add", _run_scatter_add, _describe_nothing),
    ("pack_signs", _run_pack_signs, _describe_signs),
    ("unpack_majority", _run_unpack_majority, _describe_nothing),
    ("quantise_stochastic", _run_quantise_stochastic, _describe_codes),
    ("dequantise_add", _run_dequantise_add, _describe_nothing),
    ("encode_indices", _run_encode_indices, _describe_dynamic(torch.uint8)),
    ("decode_indices", _run_decode_indices, _describe_dynamic(torch.int32)),
    ("encode_values", _run_encode_values, _describe_dynamic(torch.uint8)),
    ("decode_values", _run_decode_values, _describe_decoded),
):
    _library.impl(_name, _run, "CPU")
    torch.library.register_fake(f"taut::{_name}", _describe, lib=_library)
