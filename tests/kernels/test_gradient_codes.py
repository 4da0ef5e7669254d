"""Codes of gradients: sums at given places, signs, and a few bits at random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from selection_reference import INFINITY, KINDS, NAN, gradient, same_bits

from taut.errors import KernelError
from taut.kernels import (
    QUANTISE_BLOCK,
    available_isas,
    dequantise_add,
    force,
    pack_signs,
    quantise_stochastic,
    scatter_add,
    unpack_majority,
)

SIZES = (0, 1, 7, 8, 9, 100, 1000, 1027)


def test_scatter_add_adds_in_order_at_the_places() -> None:
    dense = torch.arange(6.0)
    scatter_add(dense, torch.tensor([1, 5, 1], dtype=torch.int32), torch.tensor([1.0, 2.0, 4.0]), 0.5)
    assert dense.tolist() == [0, 3.5, 2, 3, 4, 6]


@given(size=st.integers(1, 300), seed=st.integers(0, 1000), scale=st.floats(-4, 4, width=32))
def test_scatter_add_equals_index_add(size: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = size // 2
    places = torch.randperm(size, generator=generator)[:count].int()
    values = torch.randn(count, generator=generator)
    dense = torch.randn(size, generator=generator)
    expected = dense.clone().index_add_(0, places, values * scale)
    scatter_add(dense, places, values, scale)
    assert same_bits(dense, expected)


def test_scatter_add_takes_bfloat16() -> None:
    dense = torch.zeros(3)
    scatter_add(dense, torch.tensor([2], dtype=torch.int32), torch.tensor([1.5], dtype=torch.bfloat16))
    assert dense.tolist() == [0, 0, 1.5]


@pytest.mark.parametrize(("bad", "at"), [(-1, 3), (100, 0), (2**31 - 1, 2999), (-(2**31), 1500)])
def test_an_index_outside_is_named_and_nothing_is_added(bad: int, at: int) -> None:
    dense = torch.zeros(100)
    indices = torch.randint(0, 100, (3000,), dtype=torch.int32)
    indices[at] = bad
    with pytest.raises(KernelError, match=f"entry {at} is {bad}"):
        scatter_add(dense, indices, torch.ones(3000))
    assert torch.count_nonzero(dense) == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_signs_return(size: int, kind: str, isa: str) -> None:
    x = gradient(kind, size)
    packed = pack_signs(x)
    assert packed.shape == ((size + 7) // 8,)
    expected = torch.where(x.signbit(), -0.5, 0.5)
    assert torch.equal(unpack_majority(packed[None], size, 0.5), expected)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("size", SIZES)
def test_majority_of_the_signs(ranks: int, size: int, isa: str) -> None:
    votes = torch.randn(ranks, size)
    packed = torch.stack([pack_signs(vote) for vote in votes])
    expected = torch.where(votes.signbit(), -1, 1).sum(0).sign().float()
    assert torch.equal(unpack_majority(packed, size), expected)


def test_majority_into_memory_that_is_there() -> None:
    out = torch.full((10,), NAN)
    assert unpack_majority(pack_signs(torch.ones(10))[None], 10, out=out) is out
    assert torch.equal(out, torch.ones(10))


def test_signs_on_threads(two_threads: None) -> None:
    votes = torch.randn(3, 300_001)
    packed = torch.stack([pack_signs(vote) for vote in votes])
    assert torch.equal(unpack_majority(packed, 300_001), votes.sign().sum(0).sign())


def decode(codes: torch.Tensor, steps: torch.Tensor, bits: int, size: int) -> torch.Tensor:
    dense = torch.zeros(size)
    dequantise_add(dense, codes, steps, bits)
    return dense


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("size", [*SIZES, 512, 513, 5000])
def test_each_element_is_rounded_to_one_of_its_neighbours(bits: int, size: int, isa: str) -> None:
    x = gradient("normal", size)
    codes, steps = quantise_stochastic(x, bits, seed=3)
    assert codes.shape == ((size * bits + 7) // 8,)
    assert steps.shape == (-(-size // QUANTISE_BLOCK),)
    y = decode(codes, steps, bits, size)
    step = steps.repeat_interleave(QUANTISE_BLOCK)[:size]
    assert bool(((y - x).abs() <= step * 1.0001).all())
    levels = 2 ** (bits - 1) - 1
    assert bool(((y / step).abs() <= levels + 1e-3).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_have_the_same_bits_everywhere(kind: str, bits: int) -> None:
    x = gradient(kind, 3001)
    runs = []
    for isa in available_isas():
        with force(isa):
            codes, steps = quantise_stochastic(x, bits, seed=2**40 + 5)
            runs.append((codes, steps, decode(codes, steps, bits, 3001)))
    for codes, steps, y in runs:
        assert torch.equal(codes, runs[0][0])
        assert torch.equal(steps.isnan(), runs[0][1].isnan())
        assert torch.equal(steps.nan_to_num(), runs[0][1].nan_to_num())
        assert torch.equal(y.isnan(), runs[0][2].isnan())
        assert torch.equal(y.nan_to_num(), runs[0][2].nan_to_num())


def test_codes_do_not_depend_on_threads(two_threads: None) -> None:
    x = gradient("normal", 300_001)
    codes, steps = quantise_stochastic(x, 4, 9)
    torch.set_num_threads(1)
    one, one_steps = quantise_stochastic(x, 4, 9)
    assert torch.equal(codes, one)
    assert torch.equal(steps, one_steps)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_mean_over_seeds_is_the_element(bits: int) -> None:
    x = torch.linspace(-1, 1, QUANTISE_BLOCK)
    rounds = 4000
    total = torch.zeros(QUANTISE_BLOCK, dtype=torch.float64)
    for seed in range(rounds):
        total += decode(*quantise_stochastic(x, bits, seed), bits, QUANTISE_BLOCK)
    # The step times a fair coin's deviation bounds that of one draw; six of the mean's allow for all elements.
    step = 1 / (2 ** (bits - 1) - 1)
    assert float((total / rounds - x).abs().max()) < 6 * 0.5 * step / rounds**0.5


def test_seeds_and_positions_give_other_numbers() -> None:
    x = torch.full((64 * QUANTISE_BLOCK,), 0.5)
    x[::QUANTISE_BLOCK] = 1.0  # in steps of 1, half of the others round up
    first = decode(*quantise_stochastic(x, 2, 1), 2, x.numel())
    second = decode(*quantise_stochastic(x, 2, 2), 2, x.numel())
    for y in (first, second):
        assert 0.48 < float(y.mean()) < 0.52
        neighbours = (y[1:] == y[:-1]).float().mean()
        assert 0.48 < float(neighbours) < 0.52
    assert 0.48 < float((first == second).float().mean()) < 0.52


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_block_that_is_not_finite_decodes_to_nan(bad: float, bits: int, isa: str) -> None:
    x = gradient("normal", 3 * QUANTISE_BLOCK)
    x[QUANTISE_BLOCK + 5] = bad
    y = decode(*quantise_stochastic(x, bits, 0), bits, x.numel())
    blocks = y.view(3, QUANTISE_BLOCK).isnan()
    assert blocks.all(1).tolist() == [False, True, False]
    assert not bool(blocks[0].any())


def test_decoding_adds_and_scales(isa: str) -> None:
    x = gradient("normal", 700)
    codes, steps = quantise_stochastic(x, 8, 0)
    dense = torch.ones(700)
    dequantise_add(dense, codes, steps, 8, scale=0.25)
    torch.testing.assert_close(dense, 1 + 0.25 * decode(codes, steps, 8, 700))
