"""Entries return from messages bit for bit, and no bytes can make reading fail otherwise than by a KernelError."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import KernelError
from taut.kernels import (
    MESSAGE_HEADER_BYTES,
    decode_indices,
    encode_indices,
    entry_message_bound,
    pack_entries,
    read_header,
    unpack_entries,
    write_header,
)

DTYPES = [torch.bfloat16, torch.float32, torch.float16]
LENGTH = 1_000_000


def entries_of(count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    indices = torch.randperm(LENGTH, generator=generator)[:count].sort().values.int()
    return indices, torch.randn(count, generator=generator).to(dtype)


def pack(indices: torch.Tensor, values: torch.Tensor, *, compact: bool, number: int = 0) -> torch.Tensor:
    out = torch.empty(entry_message_bound(indices.numel(), values.dtype, compact=compact), dtype=torch.uint8)
    return out[: pack_entries(indices, values, out, compact=compact, length=LENGTH, number=number)].clone()


def unpack(
    message: torch.Tensor, count: int, dtype: torch.dtype, *, compact: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return unpack_entries(message, count, dtype, compact=compact, length=LENGTH)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 3, 511, 512, 513, 10_000])
def test_entries_return(dtype: torch.dtype, count: int, compact: bool) -> None:
    given_ = entries_of(count, dtype)
    message = pack(*given_, compact=compact, number=-7)
    assert read_header(message) == (len(message) - MESSAGE_HEADER_BYTES, count, -7)
    # What follows a message does not count.
    for room in (message, torch.cat([message, message])):
        found = unpack(room, count, dtype, compact=compact)
        assert torch.equal(found[0], given_[0])
        assert torch.equal(found[1], given_[1])
        assert found[1].dtype == dtype


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@given(content=st.binary(max_size=3000), count=st.integers(0, 3000), claimed=st.integers(-(2**63), 2**63 - 1))
def test_arbitrary_bytes_give_entries_or_a_refusal(
    dtype: torch.dtype, compact: bool, content: bytes, count: int, claimed: int
) -> None:
    for size in (claimed, len(content)):
        header = torch.tensor([size, count, 0]).view(torch.uint8)
        message = torch.cat([header, torch.tensor(list(content), dtype=torch.uint8)])
        check_reading(message, min(count, len(message)), dtype, compact=compact)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    count=st.integers(1, 2000),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.floats(0, 1),
)
def test_damaged_messages_give_entries_or_a_refusal(
    dtype: torch.dtype, compact: bool, count: int, changes: list, cut: float
) -> None:
    message = pack(*entries_of(count, dtype), compact=compact)
    for place, byte in changes:
        message[int(place * message.numel())] = byte
    check_reading(message[: round(cut * message.numel())].clone(), count, dtype, compact=compact)
    check_reading(message, count, dtype, compact=compact)


def check_reading(message: torch.Tensor, count: int, dtype: torch.dtype, *, compact: bool) -> None:
    try:
        indices, values = unpack(message, count, dtype, compact=compact)
    except KernelError:
        return
    assert indices.shape == values.shape == (count,)
    assert values.dtype == dtype
    if count and compact:
        assert int(indices[0]) >= 0
        assert int(indices[-1]) < LENGTH
        assert bool((indices.diff() > 0).all())


@pytest.mark.parametrize("place", [0, 1, 255, 510, 511])
@pytest.mark.parametrize("gap", [60, 1_000, 2_000_000])
def test_one_wide_gap_among_narrow_ones_returns(place: int, gap: int) -> None:
    gaps = torch.ones(512, dtype=torch.int64)
    gaps[place] += gap
    indices = gaps.cumsum(0).int()
    assert torch.equal(decode_indices(encode_indices(indices, 2**31 - 1), 2**31 - 1), indices)


def with_size(content: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.tensor([len(content), 0, 0]).view(torch.uint8), content])


def test_refusals_say_what_is_wrong() -> None:
    indices, values = entries_of(1000, torch.bfloat16)
    code = pack(indices, values, compact=True)[MESSAGE_HEADER_BYTES:]
    plain = pack(indices, values, compact=False)[MESSAGE_HEADER_BYTES:]
    fewer = pack(indices[:-1], values[:-1], compact=True)[MESSAGE_HEADER_BYTES:]
    split, fewer_split = (8 + int(one[:8].view(torch.int64)) for one in (code, fewer))
    for content, compact, dtype, text in (
        (plain[:-1], False, torch.bfloat16, "the bytes that it should"),
        (plain, False, torch.float32, "the bytes that it should"),
        (code[:7], True, torch.bfloat16, "the bytes that it should"),
        (torch.full_like(code, 255), True, torch.bfloat16, "the bytes that it should"),
        (code, True, torch.float16, "the bytes that it should"),
        (code, True, torch.float32, "block of values"),
        (code[:-1], True, torch.bfloat16, "block of indices"),
        (torch.cat([code[:split], fewer[fewer_split:]]), True, torch.bfloat16, "as many indices as values"),
    ):
        count = min(1000, len(content))
        with pytest.raises(KernelError, match=text):
            unpack(with_size(content), count, dtype, compact=compact)
    with pytest.raises(KernelError, match="the bytes that it should"):
        unpack(with_size(code)[:-1].clone(), 1000, torch.bfloat16, compact=True)


def test_arguments_that_do_not_fit_are_refused() -> None:
    indices, values = entries_of(10, torch.float32)
    out = torch.empty(entry_message_bound(10, torch.float32, compact=True), dtype=torch.uint8)

    def packing(indices: torch.Tensor, values: torch.Tensor, length: int = LENGTH, out: torch.Tensor = out) -> object:
        return pack_entries(indices, values, out, compact=True, length=length)

    for call, text in (
        (lambda: packing(indices[:9], values), "indices: has 9"),
        (lambda: packing(indices.flip(0), values), "entry 1 is"),
        (lambda: packing(indices, values, 5), "ascending indices from 0 to 4"),
        (lambda: packing(indices.long(), values), "indices"),
        (lambda: packing(indices, values.double()), r"values: got torch\.float64"),
        (lambda: packing(indices[::2].contiguous(), values[::2]), "values"),
        (lambda: packing(indices[::2].contiguous(), values.half()[::2]), "values"),
        (lambda: packing(indices, values, out=out[:-1]), "out: has .* bytes"),
        (lambda: packing(indices, values, out=out.float()), "out"),
        (lambda: packing(indices, values, -1), "length: got -1"),
        (lambda: unpack(out, -1, torch.float32, compact=True), "count: got -1"),
        (lambda: unpack(out, out.numel() + 1, torch.float32, compact=True), "count: got"),
        (lambda: unpack(out, 1, torch.int32, compact=True), r"dtype: got torch\.int32"),
        (lambda: unpack(out.float(), 1, torch.float32, compact=True), "message"),
        (lambda: unpack_entries(out, 1, torch.float32, compact=True, length=2**31), "length: got"),
        (lambda: read_header(out[:23]), "message: has 23 bytes"),
        (lambda: write_header(out[:23], 0, 0, 0), "message: has 23 bytes"),
        (lambda: write_header(out.float(), 0, 0, 0), "message"),
        (lambda: entry_message_bound(-1, torch.float32, compact=True), "count: got -1"),
        (lambda: entry_message_bound(1, torch.float64, compact=False), r"dtype: got torch\.float64"),
    ):
        with pytest.raises(KernelError, match=text):
            call()
