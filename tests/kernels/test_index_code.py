"""Indices return from their code, and no bytes can make decoding fail otherwise than by a KernelError."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import KernelError
from taut.kernels import decode_indices, encode_indices

LARGEST = 2**31 - 1


def spread(length: int, count: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(sorted(random.Random(seed).sample(range(length), count)), dtype=torch.int32)


@given(indices=st.sets(st.integers(0, LARGEST - 1), max_size=1500))
def test_any_ascending_indices_return(indices: set[int]) -> None:
    given_ = torch.tensor(sorted(indices), dtype=torch.int32)
    assert torch.equal(decode_indices(encode_indices(given_, LARGEST), LARGEST), given_)


@given(
    gaps=st.lists(st.one_of(st.just(1), st.integers(1, 300), st.integers(1, 100_000)), max_size=1500),
)
def test_dense_and_clustered_indices_return(gaps: list[int]) -> None:
    given_ = torch.tensor(gaps, dtype=torch.int64).cumsum(0).sub(1).int()
    assert torch.equal(decode_indices(encode_indices(given_, LARGEST), LARGEST), given_)


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1024, 100_000])
def test_whole_blocks_and_rests(count: int) -> None:
    given_ = torch.arange(count, dtype=torch.int32)
    code = encode_indices(given_, count)
    assert torch.equal(decode_indices(code, count), given_)
    # One bit says that the next index follows at once.
    assert code.numel() <= 4 + -(-count // 512) * 4 + count // 8


def test_the_ends_of_the_range() -> None:
    given_ = torch.tensor([0, LARGEST - 1], dtype=torch.int32)
    assert torch.equal(decode_indices(encode_indices(given_, LARGEST), LARGEST), given_)
    given_ = torch.tensor([LARGEST - 1], dtype=torch.int32)
    assert torch.equal(decode_indices(encode_indices(given_, LARGEST), LARGEST), given_)


@pytest.mark.parametrize(("share", "bits"), [(0.1, 4.85), (0.01, 8.20), (0.001, 11.65)])
def test_size_is_near_the_entropy(share: float, bits: float) -> None:
    # The entropy of evenly spread indices is 4.69, 8.08 and 11.41 bits each.
    length = 2_000_000
    indices = spread(length, int(share * length))
    assert encode_indices(indices, length).numel() * 8 / indices.numel() < bits


@given(code=st.binary(max_size=3000), length=st.integers(0, LARGEST))
def test_arbitrary_bytes_give_valid_indices_or_a_refusal(code: bytes, length: int) -> None:
    check_decoding(torch.tensor(list(code), dtype=torch.uint8), length)


@given(
    count=st.integers(1, 2000),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.floats(0, 1),
)
def test_damaged_codes_give_valid_indices_or_a_refusal(count: int, changes: list, cut: float) -> None:
    code = encode_indices(spread(100_000, count), 100_000)
    for place, byte in changes:
        code[int(place * code.numel())] = byte
    check_decoding(code[: round(cut * code.numel())], 100_000)
    check_decoding(code, 100_000)


def check_decoding(code: torch.Tensor, length: int) -> None:
    try:
        indices = decode_indices(code.clone(), length)
    except KernelError:
        return
    if indices.numel():
        assert int(indices[0]) >= 0
        assert int(indices[-1]) < length
        assert bool((indices.diff() > 0).all())


def test_refusals_say_what_is_wrong() -> None:
    code = encode_indices(spread(10_000, 1500), 10_000)
    for damaged, length, text in (
        (code[:3], 10_000, "shorter"),
        (code[:4], 10_000, "shorter"),
        (code[:-1], 10_000, "ends within"),
        (torch.cat([code, code.new_zeros(1)]), 10_000, "goes on"),
        (code, 9_000, "not below 9000"),
        (code.clone().index_fill_(0, torch.tensor([4]), 31), 10_000, "parameter"),
        (code.clone().index_fill_(0, torch.tensor([5]), 9), 10_000, "as many"),
    ):
        with pytest.raises(KernelError, match=text):
            decode_indices(damaged.clone(), length)


@pytest.mark.parametrize(
    ("indices", "at"), [([3, 3], 1), ([5, 4], 1), ([-1], 0), ([0, 1, 10], 2), ([0, 1, 2, LARGEST], 3)]
)
def test_only_ascending_indices_are_encoded(indices: list[int], at: int) -> None:
    with pytest.raises(KernelError, match=f"entry {at} is"):
        encode_indices(torch.tensor(indices, dtype=torch.int32), 10)
