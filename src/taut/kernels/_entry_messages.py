"""Messages of the entries of sparse tensors. They are no part of graphs that are traced."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import MOST_ELEMENTS, check_length
from taut.kernels._load import _native

MESSAGE_HEADER_BYTES: int = _native.message_header
"""Three little-endian 64-bit integers: the bytes behind them, the entries, and a number of the sender's."""

_DTYPES = {torch.float32: (4, True), torch.bfloat16: (2, True), torch.float16: (2, False)}  # bytes; whether coded


def entry_message_bound(count: int, dtype: torch.dtype, *, compact: bool) -> int:
    """Bytes that are enough for a message of any `count` entries; of plain ones exactly.

    Args:
        count: of the entries.
        dtype: of the values: float32, bfloat16 or float16.
        compact: whether entries are coded.

    Raises:
        KernelError: an argument is not as above.
    """
    if not isinstance(count, int) or not 0 <= count <= MOST_ELEMENTS:
        raise KernelError(f"count: got {count!r}", expected=f"an integer from 0 to {MOST_ELEMENTS}")
    width, coded = _describe("dtype", dtype)
    return _native.entry_message_bound(count, width, compact, coded)


def pack_entries(indices: Tensor, values: Tensor, out: Tensor, *, compact: bool, length: int, number: int = 0) -> int:
    """Write entries as one message.

    Args:
        indices: `(entries,)` int32, contiguous; if compact ascending, 0 to `length - 1`.
        values: `(entries,)` float32, bfloat16 or float16, contiguous.
        out: `(room,)` uint8, at least `entry_message_bound`, whose first bytes become the message.
        compact: to code indices as `encode_indices` and values, but float16, as `encode_values` does; nothing is lost.
        length: number of elements of the tensor that the entries are of.
        number: what the sender says beside them, 64 bits.

    Returns:
        The bytes of the message.

    Raises:
        KernelError: an argument is not as above.
    """
    check_length(length)
    _, coded = _describe("values", values.dtype)
    return _native.pack_entries(indices, _readable(values), compact, coded, length, number, out)


def write_header(message: Tensor, size: int, entries: int, number: int) -> None:
    """Begin any message that has such a header.

    Args:
        message: `(room,)` uint8, at least MESSAGE_HEADER_BYTES.
        size: bytes that follow the header.
        entries: in them.
        number: what the sender says beside them, 64 bits.

    Raises:
        KernelError: the message is no such tensor, or shorter than a header.
    """
    _native.write_message_header(message, size, entries, number)


def read_header(message: Tensor) -> tuple[int, int, int]:
    """The bytes behind the header of a message, its entries, and the sender's number.

    Args:
        message: `(room,)` uint8, which begins with it; any message that has such a header.

    Raises:
        KernelError: it is no such tensor, or shorter than a header.
    """
    return _native.read_message_header(message)


def unpack_entries(
    message: Tensor, count: int, dtype: torch.dtype, *, compact: bool, length: int
) -> tuple[Tensor, Tensor]:
    """Read what `pack_entries` wrote; the bytes are not trusted.

    Args:
        message: `(room,)` uint8, which begins with the message.
        count: number of entries.
        dtype: of the values, as they were given.
        compact: as it was packed.
        length: as it was packed.

    Returns:
        Indices, `(count,)` int32, and values, `(count,)`. Compact indices are ascending, 0 to `length - 1`, whatever
        the bytes are; plain ones are as they have come.

    Raises:
        KernelError: the bytes are no such message.
    """
    check_length(length)
    # An entry takes a byte and more.
    if not isinstance(count, int) or not 0 <= count <= message.numel():
        raise KernelError(f"count: got {count!r}", expected=f"an integer from 0 to {message.numel()}, the bytes")
    _, coded = _describe("dtype", dtype)
    indices, values = message.new_empty(count, dtype=torch.int32), message.new_empty(count, dtype=dtype)
    _native.unpack_entries(message, compact, coded, length, indices, _readable(values))
    return indices, values


def _describe(name: str, dtype: torch.dtype) -> tuple[int, bool]:
    if dtype not in _DTYPES:
        raise KernelError(f"{name}: got {dtype}", expected="float32, bfloat16 or float16")
    return _DTYPES[dtype]


def _readable(values: Tensor) -> Tensor:
    """The same bits in a dtype that the kernels know."""
    return values.view(torch.bfloat16) if values.dtype == torch.float16 else values
