"""Moments of magnitudes against numpy in float64, with the same bits on every instruction set and thread count."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from selection_reference import INFINITY, KINDS, NAN, gradient, magnitude_bits, same_bits

from taut.kernels import (
    MAGNITUDE_BINS,
    Moments,
    accumulate_moments,
    available_isas,
    exceedance_moments,
    force,
)


def close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-12, abs_tol=1e-300) or (math.isnan(value) and math.isnan(expected))


def numbers(moments: Moments) -> tuple[float, ...]:
    return dataclasses.astuple(moments)[:6]


def reference(x: torch.Tensor) -> Moments:
    magnitude = np.abs(x.double().numpy())
    with np.errstate(all="ignore"):
        nonzero = magnitude[magnitude != 0]
        largest = torch.tensor(int(magnitude_bits(x).max()) if x.numel() else 0, dtype=torch.int32)
        return Moments(
            count=magnitude.size,
            mean=float(magnitude.mean()) if magnitude.size else 0.0,
            second=float((magnitude**2).mean()) if magnitude.size else 0.0,
            mean_log=float(np.log(nonzero).mean()) if nonzero.size else 0.0,
            maximum=float(largest.view(torch.float32)),
            nonzero=nonzero.size,
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4095, 4097, 50_001])
def test_moments_of_the_sum(kind: str, size: int, isa: str) -> None:
    added, residual = gradient("normal", size, 3) * 1e-3, gradient(kind, size, 4)
    total = residual + added
    moments = accumulate_moments(added, residual, log=True)
    assert same_bits(residual, total)
    for value, expected in zip(numbers(moments), numbers(reference(total)), strict=True):
        assert close(value, expected), (moments, reference(total))


@given(values=st.lists(st.floats(width=32), max_size=100))
def test_bits_do_not_depend_on_the_instruction_set(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    runs = []
    for isa in available_isas():
        with force(isa):
            all_of_them = accumulate_moments(torch.zeros_like(x), x.clone(), log=True)
            runs.append(repr((all_of_them, exceedance_moments(x, 0.25, log=True))))
    assert len(set(runs)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_bit(kind: str, two_threads: None) -> None:
    x = gradient(kind, 300_001)
    zero = torch.zeros_like(x)
    both = accumulate_moments(zero, x.clone(), log=True, histogram=True)
    above = exceedance_moments(x, 0.5, log=True)
    torch.set_num_threads(1)
    one = accumulate_moments(zero, x.clone(), log=True, histogram=True)
    assert repr(numbers(both)) == repr(numbers(one))
    assert both.histogram is not None
    assert one.histogram is not None
    assert torch.equal(both.histogram, one.histogram)
    assert repr(above) == repr(exceedance_moments(x, 0.5, log=True))


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_counts_the_top_bits(kind: str, isa: str) -> None:
    x = gradient(kind, 10_003)
    moments = accumulate_moments(torch.zeros_like(x), x, histogram=True)
    assert moments.histogram is not None
    expected = torch.bincount(magnitude_bits(x) >> 15, minlength=MAGNITUDE_BINS)
    assert torch.equal(moments.histogram.long(), expected)


def test_logarithm_and_histogram_only_when_asked() -> None:
    moments = accumulate_moments(torch.ones(3), torch.ones(3))
    assert math.isnan(moments.mean_log)
    assert moments.histogram is None


@pytest.mark.parametrize("values", [[1.0, NAN, 2.0], [1.0, INFINITY, 2.0], [INFINITY, NAN]])
def test_what_is_not_finite_shows_in_every_moment(values: list[float], isa: str) -> None:
    x = torch.tensor(values)
    moments = accumulate_moments(torch.zeros_like(x), x, log=True)
    assert not any(math.isfinite(value) for value in numbers(moments)[1:5])
    assert not math.isfinite(exceedance_moments(x, 5.0).mean)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 2.5, 1e6])
def test_exceedances(kind: str, threshold: float, isa: str) -> None:
    x = gradient(kind, 20_005)
    magnitude = np.abs(x.double().numpy())
    above = magnitude[~(magnitude <= threshold)]
    excess = above - threshold
    moments = exceedance_moments(x, threshold, log=True)
    assert moments.count == moments.nonzero == excess.size
    with np.errstate(all="ignore"):
        assert close(moments.mean, float(excess.mean()) if excess.size else 0.0)
        assert close(moments.second, float((excess**2).mean()) if excess.size else 0.0)
        assert close(moments.mean_log, float(np.log(above).mean()) if excess.size else 0.0)
        assert close(moments.maximum, float(excess.max()) if excess.size else 0.0)
