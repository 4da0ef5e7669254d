"""Every format: sizes to the byte, views that agree with the buffers, and encoding what was decoded."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import ArgumentError
from taut.numerics import FORMATS, Encoded, Format, encode, get_format

OTHERS = ("vsq2-v2-s2", "vsq3-v7-s5", "vsq5-v9-s9", "vsq8-v16-s4", "vsq8-v16-s10", "uint3-tensor", "uint2-channel")
OTHERS += ("int7-tensor",)
NAMES = (*FORMATS, *OTHERS)
# Re-encoding changes nothing, except where ggml's algorithm prescribes other steps, where products of elements and
# scales are too many to tell apart in float32, and for NVFP4 vectors so small that their E4M3 scale is subnormal.
NOT_IDEMPOTENT = ("q4_k", "vsq8-v16-s10", "vsq5-v9-s9", "nvfp4")

shapes = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple)


def numbers(shape: tuple[int, ...], seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return x * torch.exp(spread * torch.randn((*shape[:-1], 1), generator=generator))


def expected_bytes(name: str, shape: tuple[int, ...]) -> int:
    """Bits times elements plus scales, rows starting on a byte, by the definitions."""
    rows = shape[0] if len(shape) > 1 else 1
    length = shape[len(shape) - 1]
    runs = math.prod(shape[1 : len(shape) - 1])

    def row(vector: int, bits: int, scale_bits: int) -> int:
        return -(-runs * length * bits // 8) + -(-runs * -(-length // vector) * scale_bits // 8)

    one = runs * length
    table = {
        "int8-channel": rows * (one + 4),
        "int3-channel": rows * (-(-one * 3 // 8) + 4),
        "int8-tensor": rows * one + 4,
        "uint4-channel": rows * (-(-one // 2) + 1 + 4),
        "uint8-tensor": rows * one + 1 + 4,
        "vsq4-v16-s4": rows * (row(16, 4, 4) + 4),
        "vsq4-v16-s4-tensor": rows * row(16, 4, 4) + 4,
        "vsq3-v16-s6": rows * (row(16, 3, 6) + 4),
        "vsq5-v9-s9": rows * (row(9, 5, 9) + 4),
        "vsq4-v16-f16": rows * row(16, 4, 16),
        "vsq4-v16-f32": rows * row(16, 4, 32),
        "mxfp4": rows * row(32, 4, 8),
        "mxfp6-e2m3": rows * row(32, 6, 8),
        "mxint8": rows * row(32, 8, 8),
        "nvfp4": rows * row(16, 4, 8) + 4,
        "q4_0": rows * runs * -(-length // 32) * 18,
        "q4_k": rows * runs * -(-length // 256) * 144,
    }
    return table[name]


SIZED = ("int8-channel", "int3-channel", "int8-tensor", "uint4-channel", "uint8-tensor", "vsq4-v16-s4")
SIZED += ("vsq4-v16-s4-tensor", "vsq3-v16-s6", "vsq5-v9-s9", "vsq4-v16-f16", "vsq4-v16-f32", "mxfp4", "mxfp6-e2m3")
SIZED += ("mxint8", "nvfp4", "q4_0", "q4_k")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SIZED), shapes)
def test_stored_bytes_are_elements_and_scales_and_nothing_else(name: str, shape: tuple[int, ...]) -> None:
    encoded = encode(numbers(shape), name)
    held = sum(buffer.numel() * buffer.element_size() for buffer in encoded.buffers.values())
    assert held == encoded.nbytes == get_format(name).nbytes(shape) == expected_bytes(name, shape)
    if math.prod(shape):
        assert get_format(name).bits_per_element(shape) == 8 * held / math.prod(shape)


def test_four_bits_and_a_quarter() -> None:
    number_format = get_format("vsq4-v16-s4")
    assert number_format.nominal_bits == 4.25
    assert number_format.nbytes((1536, 384)) == 1536 * (384 * 4 // 8 + 24 * 4 // 8 + 4)
    assert get_format("q4_k").nominal_bits == get_format("q4_0").nominal_bits == get_format("nvfp4").nominal_bits == 4.5


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), shapes, st.integers(0, 2**31))
def test_views_agree_with_the_buffers(name: str, shape: tuple[int, ...], seed: int) -> None:
    encoded = encode(numbers(shape, seed), name)
    codes, values = encoded.codes(), encoded.decode()
    assert codes.shape == values.shape == shape
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    again = encoded.with_codes(codes)
    assert all(torch.equal(again.buffers[part], encoded.buffers[part]) for part in encoded.buffers)
    scales, gammas = encoded.scale_codes(), encoded.gammas()
    if scales is not None:
        assert scales.shape[:-1] == shape[:-1]
    assert gammas is None or gammas.dtype == torch.float32


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([name for name in NAMES if name not in NOT_IDEMPOTENT]),
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1.0, 2.0]),
)
def test_encoding_what_was_decoded_changes_no_bit(name: str, shape: tuple[int, ...], seed: int, spread: float) -> None:
    values = encode(numbers(shape, seed, spread), name).decode()
    assert torch.equal(encode(values, name).decode().view(torch.int32), values.view(torch.int32))


@pytest.mark.parametrize("seed", range(20))
def test_nvfp4_changes_no_bit_where_scales_are_normal(seed: int) -> None:
    x = numbers((30, 48), seed, spread=0.5)
    x[:, ::16] = x[:, ::16].abs() + 1  # no vector below 2**-12 of the largest magnitude
    values = encode(x, "nvfp4").decode()
    assert torch.equal(encode(values, "nvfp4").decode(), values)


def test_q4_k_loses_next_to_nothing() -> None:
    x = numbers((64, 256), spread=0.5)
    values = encode(x, "q4_k").decode()
    again = encode(values, "q4_k").decode()
    assert (again - values).square().sum() < 0.02 * (values - x).square().sum()


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay_zeros(name: str) -> None:
    x = numbers((4, 70))
    x[1] = 0.0
    assert not encode(x, name).decode()[1].any()
    assert not encode(torch.zeros(3, 50), name).decode().any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2.0**-149, 2.0**-130, 2.0**-101, 2.0**-90, 2.0**100])
def test_extreme_magnitudes_give_finite_numbers(name: str, scale: float) -> None:
    x = numbers((3, 40), spread=0.0) * scale
    float16 = name in ("q4_0", "q4_k", "vsq4-v16-f16")
    if float16 and scale > 1:
        with pytest.raises(ArgumentError, match="magnitudes up to"):
            encode(x, name)
        return
    values = encode(x, name).decode()
    assert torch.isfinite(values).all()
    if scale >= 2.0**-90 and not float16 and name != "vsq2-v2-s2":
        assert ((values - x) / scale).square().sum() < 0.6 * (x / scale).square().sum()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["int8-channel", "vsq4-v16-s4", "mxfp4", "nvfp4", "q4_k"])
def test_what_is_not_finite_is_refused(name: str, value: float) -> None:
    x = torch.ones(4, 32)
    x[2, 7] = value
    with pytest.raises(ArgumentError, match="1 of 128 values NaN or infinite"):
        encode(x, name)


def test_other_refusals_name_the_argument() -> None:
    x = torch.ones(4, 32)
    with pytest.raises(ArgumentError, match=r"below 2\*\*126"):
        encode(x * 2.0**126, "vsq4-v16-s4")
    with pytest.raises(ArgumentError, match=r"torch\.int64"):
        encode(x.long(), "vsq4-v16-s4")
    with pytest.raises(ArgumentError, match="shape"):
        encode(torch.tensor(1.0), "vsq4-v16-s4")
    with pytest.raises(ArgumentError, match="did you mean 'search'"):
        encode(x, "vsq4-v16-s4", chooser="serch")
    with pytest.raises(ArgumentError, match="for mxfp4 one of max, search"):
        encode(x, "mxfp4", chooser="entropy")
    with pytest.raises(ArgumentError, match="importance"):
        encode(x, "vsq4-v16-s4", importance=torch.ones(31))
    with pytest.raises(ArgumentError, match="importance"):
        encode(x, "vsq4-v16-s4", importance=-torch.ones(32))


@pytest.mark.parametrize(
    ("given_name", "closest"),
    [("vsq4-v16-s44", "vsq4-v16-s4"), ("int4-chanel", "int4-channel"), ("NVFP4", "nvfp4"), ("mxfp6", "mxfp4")],
)
def test_an_unknown_name_is_answered_with_the_closest(given_name: str, closest: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        get_format(given_name)
    assert caught.value.fix is not None
    assert closest.split("-")[0] in caught.value.fix


@pytest.mark.parametrize(
    "name", ["vsq1-v16-s4", "vsq9-v16-s4", "vsq4-v1-s4", "vsq4-v257-s4", "vsq4-v16-s11", "int1-channel"]
)
def test_sizes_beyond_the_family_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        get_format(name)


def test_buffers_that_do_not_fit_are_refused() -> None:
    encoded = encode(torch.randn(4, 32), "vsq4-v16-s4")
    buffers = dict(encoded.buffers)
    with pytest.raises(ArgumentError, match="codes"):
        Encoded(encoded.format, (4, 34), buffers)
    with pytest.raises(ArgumentError, match="buffers"):
        Encoded(encoded.format, (4, 32), {"codes": buffers["codes"]})
    with pytest.raises(ArgumentError, match="out of range"):
        encoded.with_codes(torch.full((4, 32), 8, dtype=torch.int8))
    with pytest.raises(ArgumentError, match="codes"):
        encoded.with_codes(torch.zeros(4, 31, dtype=torch.int8))


def test_faults_act_on_the_stored_codes() -> None:
    encoded = encode(torch.randn(4, 32), "vsq4-v16-s4")
    flipped = encoded.codes().clone()
    flipped[0, 0] = -8  # a bit error can leave the symmetric range
    broken = encoded.with_codes(flipped)
    scales, gammas = encoded.scale_codes(), encoded.gammas()
    assert scales is not None
    assert gammas is not None
    assert broken.decode()[0, 0] == -8.0 * scales[0, 0] * gammas[0]
    assert torch.equal(broken.decode()[1:], encoded.decode()[1:])


@pytest.mark.parametrize("name", FORMATS)
def test_listed_formats_carry_their_names(name: str) -> None:
    found = FORMATS[name]
    assert isinstance(found, Format)
    assert found.name == name
    assert get_format(name) is found
    assert found.title
