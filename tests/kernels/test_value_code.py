"""Values return from their code bit for bit, and no bytes can make decoding fail otherwise than by a KernelError."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import KernelError
from taut.kernels import decode_values, encode_values, top_k

DTYPES = [torch.bfloat16, torch.float32]
BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
INFINITY = float("inf")


def of_bits(bits: list[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(bits, dtype=torch.int64).to(BITS[dtype]).view(dtype)


def assert_returns(values: torch.Tensor) -> None:
    code = encode_values(values)
    decoded = decode_values(code, values.numel(), values.dtype)
    assert torch.equal(decoded.view(BITS[values.dtype]), values.view(BITS[values.dtype]))
    blocks = -(-values.numel() // 512)
    assert code.numel() <= values.numel() * values.element_size() + 2 * blocks


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_any_bits_return(dtype: torch.dtype, data: st.DataObject) -> None:
    most = 2 ** (8 * dtype.itemsize - 1)
    assert_returns(of_bits(data.draw(st.lists(st.integers(-most, most - 1), max_size=1200)), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    values=st.lists(st.one_of(st.floats(1, 1.9), st.floats(-300, 300), st.just(-0.0), st.just(INFINITY)), max_size=1200)
)
def test_similar_magnitudes_among_others_return(dtype: torch.dtype, values: list[float]) -> None:
    assert_returns(torch.tensor(values, dtype=torch.float64).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1024, 10_000])
def test_whole_blocks_and_rests(dtype: torch.dtype, count: int) -> None:
    assert_returns(torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_block_has_exponents_of_its_own(dtype: torch.dtype) -> None:
    scales = torch.logspace(-30, 30, 20).repeat_interleave(512)
    values = (scales * (1 + torch.rand(scales.numel()) * 0.9)).to(dtype)
    assert_returns(values)
    # Two neighbouring exponents take two bits, and one takes one.
    assert encode_values(values).numel() * 8 / values.numel() < 8 * dtype.itemsize - 8 + 2.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_entries_take_little_more_than_a_bit_for_the_exponent(dtype: torch.dtype) -> None:
    values = top_k(torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)), 10_000)[1].to(dtype)
    assert encode_values(values).numel() * 8 / values.numel() < 8 * dtype.itemsize - 8 + 1.2


@pytest.mark.parametrize("dtype", DTYPES)
@given(code=st.binary(max_size=3000), count=st.integers(0, 3000))
def test_arbitrary_bytes_give_values_or_a_refusal(dtype: torch.dtype, code: bytes, count: int) -> None:
    check_decoding(torch.tensor(list(code), dtype=torch.uint8), count, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    count=st.integers(1, 2000),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.floats(0, 1),
)
def test_damaged_codes_give_values_or_a_refusal(dtype: torch.dtype, count: int, changes: list, cut: float) -> None:
    code = encode_values(torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype))
    for place, byte in changes:
        code[int(place * code.numel())] = byte
    check_decoding(code[: round(cut * code.numel())].clone(), count, dtype)
    check_decoding(code, count, dtype)


def check_decoding(code: torch.Tensor, count: int, dtype: torch.dtype) -> None:
    try:
        values = decode_values(code, count, dtype)
    except KernelError:
        return
    assert values.shape == (count,)
    assert values.dtype == dtype


def test_refusals_say_what_is_wrong() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    code = encode_values(values)
    for damaged, count, text in (
        (code[:-1], 1000, "ends within"),
        (code[:1], 1, "ends within"),
        (torch.cat([code, code.new_zeros(1)]), 1000, "goes on"),
        (code, 512, "goes on"),
        (code.clone().index_fill_(0, torch.tensor([0]), 5), 1000, "width"),
        (code.clone().index_fill_(0, torch.tensor([1]), 255), 1000, "too large"),
        (code, -1, "count: got -1"),
        (code, code.numel() + 1, "count: got"),
    ):
        with pytest.raises(KernelError, match=text):
            decode_values(damaged.clone(), count, torch.bfloat16)
    for call in (lambda: encode_values(values.half()), lambda: decode_values(code, 1000, torch.float16)):
        with pytest.raises(KernelError, match=r"got torch\.float16"):
            call()
