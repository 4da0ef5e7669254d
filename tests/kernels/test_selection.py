"""Entries by rank and by threshold are those that sorting gives, with the same bits on every instruction set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from selection_reference import INFINITY, KINDS, NAN, gradient, magnitude_bits, reference_top_k, same_bits

from taut.kernels import accumulate_and_select_top_k, available_isas, force, select_above, top_k

SAMPLED = 140_000  # enough for the sample to bound the rank


@given(
    values=st.lists(st.floats(width=32), max_size=150),
    share=st.floats(0, 1),
)
def test_top_k_is_what_sorting_gives(values: list[float], share: float) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    k = round(share * len(values))
    expected = reference_top_k(x, k)
    for isa in available_isas():
        with force(isa):
            indices, chosen = top_k(x, k)
        assert torch.equal(indices, expected[0]), isa
        assert same_bits(chosen, expected[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [1e-5, 0.001, 0.1, 0.6, 1.0])
def test_top_k_of_large_tensors(kind: str, share: float, isa: str) -> None:
    x = gradient(kind, SAMPLED + 7)
    k = int(share * x.numel())
    indices, values = top_k(x, k)
    expected = reference_top_k(x, k)
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])


def test_a_sample_that_misleads_costs_time_only(isa: str) -> None:
    # All large entries stand in one place, which hardly any of the sampled places meets.
    x = torch.full((2_000_000,), 1e-3)
    x[1_000_000:1_030_000] = torch.randn(30_000).abs() + 1
    for k in (10_000, 30_000, 30_001, 400_000):
        indices, _ = top_k(x, k)
        assert torch.equal(indices, reference_top_k(x, k)[0])


@pytest.mark.parametrize("seed", range(20))
def test_clusters_mislead_a_sample(seed: int) -> None:
    # A sampled run meets a whole cluster or none, so that some of these tensors miss a bound on either side.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(150_000, generator=generator)
    for start in torch.randint(0, x.numel() - 128, (128,), generator=generator).tolist():
        x[start : start + 128] *= 50
    indices, values = top_k(x, 16_000)
    expected = reference_top_k(x, 16_000)
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])


@pytest.mark.parametrize("kind", ["normal", "ties", "wide"])
@pytest.mark.parametrize("share", [0.07, 0.3])
def test_results_begin_as_candidates_where_many_are_selected(kind: str, share: float, isa: str) -> None:
    x = gradient(kind, 400_011)
    k = int(share * x.numel())
    indices, values = top_k(x, k)
    expected = reference_top_k(x, k)
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 1000, 100_000])
def test_threads_do_not_change_what_is_selected(kind: str, k: int, two_threads: None) -> None:
    x = gradient(kind, SAMPLED)
    indices, values = top_k(x, k)
    expected = reference_top_k(x, k)
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])


def test_of_equal_magnitudes_the_first_are_taken(isa: str) -> None:
    indices, values = top_k(torch.tensor([1.0, -2.0, 2.0, -2.0, 0.5, 2.0]), 2)
    assert indices.tolist() == [1, 2]
    assert values.tolist() == [-2.0, 2.0]


def test_what_is_not_finite_comes_first(isa: str) -> None:
    x = torch.tensor([3e38, INFINITY, 1.0, NAN, -INFINITY])
    assert top_k(x, 1)[0].tolist() == [3]
    assert top_k(x, 2)[0].tolist() == [1, 3]
    assert top_k(x, 3)[0].tolist() == [1, 3, 4]


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_memory_need_not_be_aligned_to_vectors(offset: int, isa: str) -> None:
    x = gradient("normal", 5000)[offset:]
    assert torch.equal(top_k(x, 99)[0], reference_top_k(x, 99)[0])


def test_indices_are_into_the_flattened_tensor() -> None:
    x = gradient("normal", 600).view(20, 30)
    indices, values = top_k(x, 17)
    assert torch.equal(x.flatten()[indices], values)


@pytest.mark.parametrize("size", [0, 1, 100, SAMPLED])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.7, 1.0])
def test_accumulating_conserves_the_sum(size: int, share: float, isa: str) -> None:
    added, residual = gradient("normal", size, 1), gradient("wide", size, 2)
    total = residual + added
    k = int(share * size)
    indices, values = accumulate_and_select_top_k(added, residual, k)
    expected = reference_top_k(total, k)
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])
    assert torch.count_nonzero(residual[indices]) == 0
    residual[indices] = values
    assert same_bits(residual, total)


def test_accumulating_on_threads(two_threads: None) -> None:
    added, residual = gradient("normal", SAMPLED, 1), gradient("sparse", SAMPLED, 2)
    total = residual + added
    indices, values = accumulate_and_select_top_k(added, residual, 2000)
    assert torch.equal(indices, reference_top_k(total, 2000)[0])
    assert residual[indices].abs().max() == 0
    residual[indices] = values
    assert same_bits(residual, total)


def above(x: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where |x| > threshold, and NaN."""
    return torch.nonzero((x.double().abs() > threshold) | x.isnan())[:, 0].int()


@given(
    values=st.lists(st.floats(width=32), max_size=150),
    threshold=st.floats(0, 1e39),
    capacity=st.integers(0, 200),
    clear=st.booleans(),
)
def test_threshold_selects_what_is_above(values: list[float], threshold: float, capacity: int, clear: bool) -> None:
    given_ = torch.tensor(values, dtype=torch.float32)
    expected = above(given_, threshold)
    for isa in available_isas():
        x = given_.clone()
        with force(isa):
            indices, chosen, count = select_above(x, threshold, capacity, clear=clear)
        assert count == len(expected), isa
        assert torch.equal(indices, expected[:capacity])
        assert same_bits(chosen, given_[indices])
        if clear:
            assert torch.count_nonzero(x[indices]) == 0
            x[indices] = chosen
        assert same_bits(x, given_)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capacity", [0, 3000, 60_000, SAMPLED])
def test_too_many_above_the_threshold_stay_in_the_residual(kind: str, capacity: int, two_threads: None) -> None:
    x = gradient(kind, SAMPLED)
    before = x.clone()
    threshold = float(magnitude_bits(x).median().view(torch.float32))
    expected = above(x, threshold)
    indices, values, count = select_above(x, threshold, capacity)
    assert count == len(expected)
    assert torch.equal(indices, expected[:capacity])
    x[indices] = values
    assert same_bits(x, before)


def test_results_of_many_megabytes() -> None:
    x = torch.ones(8_400_000)
    x[5] = 0
    expected = torch.arange(x.numel(), dtype=torch.int32)[x > 0]
    assert torch.equal(select_above(x, 0.5, x.numel(), clear=False)[0], expected)
    assert torch.equal(top_k(x, x.numel() - 1)[0], expected)


def test_nothing_is_written_behind_the_capacity(isa: str) -> None:
    # The kernel gets views that end where the capacity does; the guard behind them stays.
    from taut.kernels._load import _native

    x = gradient("normal", 10_000)
    for capacity in (0, 1, 15, 16, 17, 63, 64, 65, 1000):
        indices = torch.full((capacity + 64,), -1, dtype=torch.int32)
        values = torch.full((capacity + 64,), NAN)
        _native.select_above(x, 0.5, indices[:capacity], values[:capacity], False, 1)
        assert bool((indices[capacity:] == -1).all())
        assert bool(values[capacity:].isnan().all())
        assert bool((indices[:capacity] >= 0).all())


def test_the_threshold_is_exact_although_it_is_no_float32(isa: str) -> None:
    x = torch.tensor([1.0, 1.0 + 2**-23])
    assert select_above(x, 1.0, 9, clear=False)[2] == 1
    assert select_above(x, 1.0 - 1e-12, 9, clear=False)[2] == 2
    assert select_above(x, 1.0 + 1e-12, 9, clear=False)[2] == 1


def test_only_nan_is_above_infinity(isa: str) -> None:
    x = torch.tensor([INFINITY, 3e38, NAN, -INFINITY])
    assert select_above(x, INFINITY, 9, clear=False)[0].tolist() == [2]
    assert select_above(x, 1e300, 9, clear=False)[0].tolist() == [0, 2, 3]
