"""Two-level scales: the exact order of roundings, the traps of the paper, and searches against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.numerics import convolution_rows, encode, from_convolution_rows
from taut.numerics._encoded import Encoded

CHOOSERS = ("round", "requantise", "ceil", "closest", "search", "joint")


def parts(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales, gammas = encoded.scale_codes(), encoded.gammas()
    assert scales is not None
    assert gammas is not None
    return encoded.codes().numpy(), scales.numpy(), gammas.numpy()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 70), st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 1e25]))
def test_ceil_is_its_prescribed_arithmetic(rows: int, width: int, seed: int, scale: float) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32) * np.float32(scale)
    x[0, : width // 2] = 0
    codes, scales, gammas = parts(encode(torch.from_numpy(x), "vsq4-v16-s4", chooser="ceil"))
    f = np.float32
    for row in range(rows):
        amax = np.abs(x[row]).max()
        if amax < f(2.0**-100):
            assert not codes[row].any()
            assert gammas[row] == 0
            continue
        inverse = f(105) / amax
        assert gammas[row] == amax / f(105)
        for place in range(0, width, 16):
            vector = x[row, place : place + 16]
            top = np.abs(vector).max()
            scale_code = min(max(np.ceil((top * inverse) * (f(1) / f(7))), f(1)), f(15)) if top else f(0)
            assert scales[row, place // 16] == scale_code
            factor = inverse * (f(1) / scale_code) if scale_code else f(0)
            expected = np.clip(np.rint(vector * factor), -7, 7)
            assert (codes[row, place : place + 16] == expected).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 70), st.integers(0, 2**31))
def test_closest_is_the_better_of_two_scales_in_prescribed_arithmetic(rows: int, width: int, seed: int) -> None:
    f = np.float32
    x = np.random.default_rng(seed).standard_normal((rows, width)).astype(f)
    codes, scales, gammas = parts(encode(torch.from_numpy(x), "vsq4-v16-s4", chooser="closest"))
    _, upper, expected_gammas = parts(encode(torch.from_numpy(x), "vsq4-v16-s4", chooser="ceil"))
    assert (gammas == expected_gammas).all()
    for row, vector in itertools.product(range(rows), range(-(-width // 16))):
        numbers = np.zeros(16, f)
        piece = x[row, 16 * vector : 16 * vector + 16]
        numbers[: len(piece)] = piece
        inverse = f(105) / np.abs(x[row]).max()
        outcomes = []
        for scale in (f(upper[row, vector]), f(max(upper[row, vector] - 1, 1))):
            elements = np.clip(np.rint(numbers * (inverse * (f(1) / scale))), -7, 7)
            squares = (numbers * inverse - elements * scale) ** 2
            while len(squares) > 1:
                half = len(squares) // 2
                squares = squares[:half] + squares[half:]
            outcomes.append((squares[0], scale, elements[: len(piece)]))
        _, scale, elements = min(outcomes, key=lambda outcome: outcome[0])
        assert scales[row, vector] == scale
        assert (codes[row, 16 * vector : 16 * vector + 16] == elements).all()


def test_round_is_the_order_of_the_paper() -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    codes, scales, gammas = parts(encode(x, "vsq4-v16-s4", chooser="round"))
    s = x.view(8, 4, 16).abs().amax(2) / 7
    gamma = s.amax(1) / torch.tensor(15.0)
    assert (gammas == gamma.numpy()).all()
    assert (scales == (s / gamma[:, None]).round().numpy()).all()
    assert (codes == (x.view(8, 4, 16) / s[:, :, None]).round().view(8, 64).numpy()).all()


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_permuting_rows_leaves_the_bits_of_each(chooser: str) -> None:
    x = torch.randn(24, 50, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    straight, permuted = encode(x, "vsq4-v16-s4", chooser=chooser), encode(x[order], "vsq4-v16-s4", chooser=chooser)
    for name, buffer in straight.buffers.items():
        assert torch.equal(buffer[order], permuted.buffers[name])


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_permuting_within_vectors_leaves_the_error(chooser: str) -> None:
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    order = torch.cat([16 * vector + torch.randperm(16) for vector in range(4)])
    error = (encode(x, "vsq4-v16-s4", chooser=chooser).decode() - x).square()
    permuted = (encode(x[:, order], "vsq4-v16-s4", chooser=chooser).decode() - x[:, order]).square()
    torch.testing.assert_close(permuted.sum(), error.sum(), rtol=1e-5, atol=0)


def test_a_tiny_vector_beside_a_huge_one_is_lost_by_round_alone() -> None:
    x = torch.ones(1, 32)
    x[0, 16:] = 1 / 40
    lost = encode(x, "vsq4-v16-s4", chooser="round").decode()[0, 16:]
    assert not lost.any()
    for chooser in ("requantise", "ceil", "closest", "search", "joint", None):
        kept = encode(x, "vsq4-v16-s4", chooser=chooser).decode()[0, 16:]
        assert (kept > 0).all(), chooser


def test_nothing_saturates_under_ceil() -> None:
    x = torch.randn(64, 160, generator=torch.Generator().manual_seed(0)).exp()
    encoded = encode(x, "vsq4-v16-s4", chooser="ceil")
    _, scales, gammas = parts(encoded)
    step = torch.from_numpy(scales * gammas[:, None]).repeat_interleave(16, dim=1)
    assert ((encoded.decode() - x).abs() <= 0.5001 * step).all()


def test_every_row_has_its_own_gamma_unless_the_format_says_tensor() -> None:
    x = torch.randn(6, 32) * torch.logspace(-3, 3, 6)[:, None]
    own = encode(x, "vsq4-v16-s4").gammas()
    shared = encode(x, "vsq4-v16-s4-tensor").gammas()
    assert own is not None
    assert shared is not None
    assert own.shape == (6,)
    assert len(own.unique()) == 6
    assert shared.shape == (1,)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_search_finds_the_best_scale_of_each_vector(seed: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 24, generator=generator)
    importance = torch.rand(24, generator=generator) if weighted else torch.ones(24)
    encoded = encode(x, "vsq3-v8-s4", chooser="search", importance=importance if weighted else None)
    _, _, gammas = parts(encoded)
    error = ((encoded.decode() - x).square() * importance).view(3, 3, 8).sum(2).double()
    for row, vector in itertools.product(range(3), range(3)):
        numbers = x[row, 8 * vector : 8 * vector + 8].double()
        weights = importance[8 * vector : 8 * vector + 8].double()
        best = min(
            float((((numbers / (s * g)).round().clamp(-3, 3) * s * g - numbers).square() * weights).sum())
            for s in range(1, 16)
            for g in [float(gammas[row])]
        )
        assert float(error[row, vector]) <= best * (1 + 1e-5) + 1e-12


@pytest.mark.parametrize("name", ["vsq4-v16-s4", "vsq4-v16-s6", "vsq3-v16-s4", "vsq4-v64-s6"])
def test_each_chooser_is_at_least_as_good_as_the_one_before(name: str) -> None:
    x = torch.randn(128, 384, generator=torch.Generator().manual_seed(5))
    x *= torch.rand(1, 384, generator=torch.Generator().manual_seed(6)) + 0.2
    errors = [
        float((encode(x, name, chooser=c).decode() - x).square().sum()) for c in ("requantise", "search", "joint")
    ]
    assert errors[0] >= errors[1] >= errors[2]


def test_the_fold_of_four_bit_codes_and_scales_fits_int8() -> None:
    x = torch.randn(64, 100, generator=torch.Generator().manual_seed(5))
    for chooser in CHOOSERS:
        encoded = encode(x, "vsq4-v16-s4", chooser=chooser)
        codes, scales, gammas = parts(encoded)
        fold = codes.astype(np.int32) * np.repeat(scales, 16, axis=1)[:, :100]
        assert np.abs(fold).max() <= 105
        assert (encoded.decode().numpy() == fold.astype(np.float32) * gammas[:, None]).all()


def test_vectors_of_a_convolution_run_along_input_channels() -> None:
    weight = torch.randn(5, 20, 3, 2, generator=torch.Generator().manual_seed(0))
    rows = convolution_rows(weight)
    assert rows.shape == (5, 6, 20)
    assert torch.equal(rows[3, 4], weight[3, :, 2, 0])
    assert torch.equal(from_convolution_rows(rows, (3, 2)), weight)
    encoded = encode(rows, "vsq4-v16-s4")
    scales = encoded.scale_codes()
    assert scales is not None
    assert scales.shape == (5, 6, 2)  # 20 channels: a vector of 16 and a tail of 4, at every tap
    changed = weight.clone()
    changed[2, 17, 1, 1] *= 1.01
    differing = (
        encode(convolution_rows(changed), "vsq4-v16-s4", chooser="ceil").codes()
        != encode(rows, "vsq4-v16-s4", chooser="ceil").codes()
    )
    assert not differing[[0, 1, 3, 4]].any()
    assert not differing[2, [0, 1, 2, 4, 5]].any()
