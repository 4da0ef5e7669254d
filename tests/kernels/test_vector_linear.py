"""vector_linear gives the bits of the integer-exact reference on every instruction set and number of threads."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_reference import quantise_rows
from torch import Tensor
from vector_reference import VectorWeights, quantise_vectors, random_weights, reference_vector_linear

from taut.kernels import MAX_IN_FEATURES, available_isas, force, pack_vector_linear, vector_linear
from taut.kernels._load import _native

INPUTS = ("int8", "vsq4")
ACTIVATIONS = ("none", "relu", "gelu")

problems = st.fixed_dictionaries(
    {
        "rows": st.integers(0, 30),
        "channels": st.integers(0, 150),
        "features": st.integers(0, 300),
        "inputs": st.sampled_from(INPUTS),
        "activation": st.sampled_from(ACTIVATIONS),
        "bias": st.booleans(),
        "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
        "seed": st.integers(0, 2**31),
    }
)


def make(rows: int, channels: int, features: int, seed: int = 0) -> tuple[Tensor, VectorWeights, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = random_weights(channels, features, generator)
    # Vectors of very different sizes, so that every scale occurs.
    x = torch.randn(rows, features, generator=generator)
    x = x * torch.rand(rows, -(-features // 16), generator=generator).repeat_interleave(16, dim=1)[:, :features]
    return x, weights, torch.randn(channels, generator=generator)


def pack(weights: VectorWeights) -> Tensor:
    return pack_vector_linear(weights.codes, weights.scales, weights.gammas)


def same_bits(a: Tensor, b: Tensor) -> bool:
    integer = torch.int32 if a.dtype == torch.float32 else torch.int16
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(integer), b.view(integer))


@settings(max_examples=60, deadline=None)
@given(problems)
def test_every_isa_gives_the_bits_of_the_reference(problem: dict) -> None:
    x, weights, bias = make(problem["rows"], problem["channels"], problem["features"], problem["seed"])
    x = x.to(problem["dtype"])
    bias = bias if problem["bias"] else None
    packed = pack(weights)
    expected = reference_vector_linear(x.float(), weights, bias, problem["inputs"])
    outputs = []
    for isa in available_isas():
        with force(isa):
            plain = vector_linear(x, packed, weights.gammas, bias, "none", problem["inputs"])
            outputs.append(vector_linear(x, packed, weights.gammas, bias, problem["activation"], problem["inputs"]))
        assert torch.equal(plain, expected.to(x.dtype))
    assert all(same_bits(outputs[0], other) for other in outputs[1:])
    if problem["activation"] == "relu":
        assert torch.equal(outputs[0], expected.relu().to(x.dtype))
    if problem["activation"] == "gelu":
        exact = torch.nn.functional.gelu(expected.double())
        tolerance = 2e-6 if x.dtype == torch.float32 else 8e-3
        torch.testing.assert_close(outputs[0].double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 16, 24, 25, 64])
@pytest.mark.parametrize("inputs", INPUTS)
def test_every_way_of_reading_the_weights_gives_the_same(isa: str, rows: int, inputs: str) -> None:
    x, weights, bias = make(rows, 71, 530)
    out = vector_linear(x, pack(weights), weights.gammas, bias, inputs=inputs)
    assert torch.equal(out, reference_vector_linear(x, weights, bias, inputs))


@pytest.mark.parametrize("rows", [1, 2, 25])
def test_the_largest_codes_and_depth_do_not_overflow(isa: str, rows: int) -> None:
    features = MAX_IN_FEATURES
    signs = torch.ones(2, features, dtype=torch.int8)
    signs[1, ::2] = -1
    weights = VectorWeights(
        7 * signs, torch.full((2, -(-features // 16)), 15, dtype=torch.uint8), torch.tensor([1.0, 0.5])
    )
    packed = pack(weights)
    # The sums are the largest there are, one of each sign.
    for x in (torch.ones(rows, features), -signs[1].float().expand(rows, -1)):
        for inputs, largest in (("int8", 127), ("vsq4", 105)):
            out = vector_linear(x, packed, weights.gammas, inputs=inputs)
            sums = (x[:1].double() @ signs.double().T).float() * (largest * 105)
            expected = sums * (torch.ones(1) / largest * weights.gammas)
            assert torch.equal(out, expected.expand(rows, -1))


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_opposite_extremes_do_not_saturate(isa: str, rows: int) -> None:
    pattern = torch.tensor([7, 7, -7, -7] * 16, dtype=torch.int8)
    codes = torch.stack([pattern, -pattern, pattern.roll(1), torch.full_like(pattern, 7)])
    weights = VectorWeights(codes, torch.full((4, 4), 15, dtype=torch.uint8), torch.ones(4))
    x = pattern.float().expand(rows, -1).contiguous()
    for inputs in INPUTS:
        out = vector_linear(x, pack(weights), weights.gammas, inputs=inputs)
        assert torch.equal(out, reference_vector_linear(x, weights, None, inputs))


def test_activations_become_the_codes_that_the_definition_says(isa: str) -> None:
    # One row, a vector's scale can be read off: largest magnitudes 105, 97, 7.5 and 0.
    x = torch.zeros(1, 64)
    x[0, 0], x[0, 1] = 105.0, 52.4
    x[0, 16], x[0, 17] = -97.0, 7.1
    x[0, 32], x[0, 33] = 7.5, -2.9
    weights = VectorWeights(torch.eye(64, dtype=torch.int8), torch.ones(64, 4, dtype=torch.uint8), torch.ones(64))
    out = vector_linear(x, pack(weights), weights.gammas, inputs="vsq4")[0]
    # 15: codes 7 and 3 (52.4 / 15 = 3.49), error 7.4 squared; 14 would give 98 and 56, errors 7 and 3.6 squared: more.
    # 14: -7 (-6.93) and 1 (0.51), errors 1 and 6.9 squared; 13 would give -91 and 13, errors 6 and 5.9: more.
    # 2: 4 (3.75) and -1 (-1.45), errors 0.5 and 0.9; 1 gives 7 and -3, errors 0.5 and 0.1: less.
    expected = torch.zeros(64)
    expected[[0, 1, 16, 17, 32, 33]] = torch.tensor([105.0, 45.0, -98.0, 14.0, 7.0, -3.0])
    assert torch.equal(out, expected)


def test_of_scales_with_equal_errors_the_larger_wins(isa: str) -> None:
    x = torch.zeros(1, 32)
    x[0, 0], x[0, 16], x[0, 17] = 105.0, 8.0, 1.0
    weights = VectorWeights(torch.eye(32, dtype=torch.int8), torch.ones(32, 2, dtype=torch.uint8), torch.ones(32))
    out = vector_linear(x, pack(weights), weights.gammas, inputs="vsq4")[0]
    assert out[16:18].tolist() == [8.0, 0.0]  # 2 * 4 and 2 * 0, not 1 * 7 and 1 * 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.sampled_from([1, 3]),
)
def test_any_finite_activations_are_quantised_as_the_reference_says(values: list[float], rows: int) -> None:
    x = torch.tensor(values).expand(rows, -1).contiguous()
    features = len(values)
    weights = VectorWeights(
        torch.eye(features, dtype=torch.int8), torch.ones(features, -(-features // 16), dtype=torch.uint8),
        torch.ones(features),
    )  # fmt: skip
    integers, gammas = quantise_vectors(x)
    packed = pack(weights)
    for isa in available_isas():
        with force(isa):
            out = vector_linear(x, packed, weights.gammas, inputs="vsq4")
        assert torch.equal(out, integers.float() * gammas[:, None])
    assert int(integers.abs().max()) <= 105


@pytest.mark.parametrize("poison", [float("nan"), -float("inf")])
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("inputs", INPUTS)
def test_a_row_with_nan_or_infinity_becomes_nan_and_no_other_row_changes(
    isa: str, poison: float, rows: int, inputs: str
) -> None:
    x, weights, bias = make(rows, 33, 37)
    packed = pack(weights)
    clean = vector_linear(x, packed, weights.gammas, bias, inputs=inputs)
    x[rows - 1, 36] = poison
    out = vector_linear(x, packed, weights.gammas, bias, inputs=inputs)
    assert out[-1].isnan().all()
    assert same_bits(out[:-1], clean[:-1])


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-38])
@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("inputs", INPUTS)
def test_a_row_of_zeros_or_nearly_gives_the_bias(isa: str, value: float, rows: int, inputs: str) -> None:
    _, weights, bias = make(1, 19, 21)
    out = vector_linear(torch.full((rows, 21), value), pack(weights), weights.gammas, bias, inputs=inputs)
    assert same_bits(out, bias.expand(rows, 19).contiguous())


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0), (2, 2, 3)])
def test_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    x, weights, bias = make(12, 5, 39)
    packed = pack(weights)
    count = torch.Size(shape).numel()
    out = vector_linear(x[:count].reshape(*shape, 39), packed, weights.gammas, bias)
    assert out.shape == (*shape, 5)
    assert same_bits(out.reshape(-1, 5), vector_linear(x[:count], packed, weights.gammas, bias))


@pytest.mark.parametrize("rows", [1, 9, 40])
def test_strided_and_offset_inputs_give_the_same_bits(isa: str, rows: int) -> None:
    x, weights, bias = make(rows, 35, 41)
    packed = pack(weights)
    expected = vector_linear(x, packed, weights.gammas, bias, inputs="vsq4")
    wide = torch.zeros(rows, 50)
    wide[:, 3:44] = x
    shifted = torch.zeros(rows * 41 + 1)[1:].view(rows, 41).copy_(x)
    moved = torch.zeros(packed.numel() + 1, dtype=torch.int8)[1:].view(packed.shape).copy_(packed)
    for other in (x.T.contiguous().T, wide[:, 3:44], shifted):
        assert same_bits(vector_linear(other, moved, weights.gammas, bias, inputs="vsq4"), expected)


@cache
def packed_problem(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weights, bias = make(*shape)
    return x, pack(weights), weights.gammas, bias


# By channels and by rows; the last in more than one chunk of rows.
@pytest.mark.parametrize("shape", [(1, 1700, 2600), (3, 700, 2600), (20, 300, 1800), (37, 700, 500), (75, 20, 9000)])
def test_any_number_of_threads_gives_the_same_bits(isa: str, shape: tuple[int, int, int]) -> None:
    given = packed_problem(shape)
    for inputs in INPUTS:
        one = _native.vector_linear(*given, "none", inputs, 1)
        for threads in (2, 3, 5):
            assert same_bits(_native.vector_linear(*given, "none", inputs, threads), one)


def test_int8_activations_are_those_of_int8_linear(isa: str) -> None:
    x, _, _ = make(3, 4, 50)
    weights = VectorWeights(torch.eye(50, dtype=torch.int8), torch.ones(50, 4, dtype=torch.uint8), torch.ones(50))
    integers, scales = quantise_rows(x)
    out = vector_linear(x, pack(weights), weights.gammas)
    assert torch.equal(out, integers.float() * scales[:, None])
