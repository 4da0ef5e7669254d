"""int8_linear computes what the integer-exact reference says, with the same bits everywhere."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_reference import reference_linear
from torch import Tensor

from taut.kernels import MAX_IN_FEATURES, available_isas, force, int8_linear, pack_int8_linear
from taut.kernels._load import _native

ACTIVATIONS = ("none", "relu", "gelu")

problems = st.fixed_dictionaries(
    {
        "rows": st.integers(0, 20),
        "channels": st.integers(0, 150),
        "features": st.integers(0, 150),
        "activation": st.sampled_from(ACTIVATIONS),
        "bias": st.booleans(),
        "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
        "seed": st.integers(0, 2**31),
    }
)


def make(rows: int, channels: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator)
    weight = torch.randn(channels, features, generator=generator)
    return x, weight, torch.randn(channels, generator=generator)


def same_bits(a: Tensor, b: Tensor) -> bool:
    integer = torch.int32 if a.dtype == torch.float32 else torch.int16
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(integer), b.view(integer))


@settings(max_examples=80, deadline=None)
@given(problems)
def test_every_isa_gives_the_reference_and_the_same_bits(problem: dict) -> None:
    x, weight, bias = make(problem["rows"], problem["channels"], problem["features"], problem["seed"])
    x = x.to(problem["dtype"])
    bias = bias if problem["bias"] else None
    packed, scales = pack_int8_linear(weight)
    outputs = []
    for isa in available_isas():
        with force(isa):
            outputs.append(int8_linear(x, packed, scales, bias, problem["activation"]))
    expected = reference_linear(x.float(), weight, bias, problem["activation"])
    relative = 2e-6 if problem["dtype"] == torch.float32 else 8e-3
    torch.testing.assert_close(outputs[0].double(), expected, rtol=relative, atol=relative * 2)
    assert all(same_bits(outputs[0], other) for other in outputs[1:])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0), (2, 2, 3)])
def test_leading_dimensions_are_kept(shape: tuple[int, ...]) -> None:
    x, weight, bias = make(12, 5, 7)
    packed, scales = pack_int8_linear(weight)
    count = torch.Size(shape).numel()
    out = int8_linear(x[:count].reshape(*shape, 7), packed, scales, bias)
    assert out.shape == (*shape, 5)
    assert same_bits(out.reshape(-1, 5), int8_linear(x[:count], packed, scales, bias))


def test_many_rows_are_worked_off_in_chunks(isa: str) -> None:
    x, weight, bias = make(700, 20, 1100)
    packed, scales = pack_int8_linear(weight)
    out = int8_linear(x, packed, scales, bias)
    torch.testing.assert_close(out.double(), reference_linear(x, weight, bias, "none"), rtol=2e-6, atol=2e-5)


def test_the_largest_depth_does_not_overflow(isa: str) -> None:
    x = torch.ones(2, MAX_IN_FEATURES)
    x[1] = -1
    packed, scales = pack_int8_linear(torch.ones(1, MAX_IN_FEATURES))
    out = int8_linear(x, packed, scales)
    torch.testing.assert_close(out, torch.tensor([[1.0], [-1.0]]) * MAX_IN_FEATURES, rtol=1e-6, atol=0)


def test_opposite_extremes_do_not_saturate(isa: str) -> None:
    x = torch.tensor([[1.0, 1.0, -1.0, -1.0] * 8])
    weight = torch.tensor([[1.0, 1.0, -1.0, -1.0] * 8, [-1.0, -1.0, 1.0, 1.0] * 8, [1.0, -1.0, 1.0, -1.0] * 8])
    packed, scales = pack_int8_linear(weight)
    torch.testing.assert_close(int8_linear(x, packed, scales), torch.tensor([[32.0, -32.0, 0.0]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_with_nan_or_infinity_becomes_nan_and_no_other_row_changes(
    isa: str, poison: float, activation: str
) -> None:
    x, weight, bias = make(5, 33, 37)
    packed, scales = pack_int8_linear(weight)
    clean = int8_linear(x, packed, scales, bias, activation)
    x[3, 36] = poison
    out = int8_linear(x, packed, scales, bias, activation)
    assert out[3].isnan().all()
    assert same_bits(out[[0, 1, 2, 4]], clean[[0, 1, 2, 4]])


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-38])
def test_a_row_of_zeros_or_nearly_gives_the_bias(isa: str, value: float) -> None:
    _, weight, bias = make(1, 19, 21)
    packed, scales = pack_int8_linear(weight)
    assert same_bits(int8_linear(torch.full((2, 21), value), packed, scales, bias), bias.expand(2, 19).contiguous())


def test_huge_values_stay_finite(isa: str) -> None:
    x = torch.full((1, 4), 3e38)
    packed, scales = pack_int8_linear(torch.full((1, 4), 1e-30))
    torch.testing.assert_close(int8_linear(x, packed, scales), torch.tensor([[1.2e9]]), rtol=1e-5, atol=0)


def test_a_channel_of_zeros_gives_the_bias(isa: str) -> None:
    x, weight, bias = make(3, 4, 9)
    weight[2] = 0
    out = int8_linear(x, *pack_int8_linear(weight), bias)
    assert (out[:, 2] == bias[2]).all()


def test_strided_and_offset_inputs_give_the_same_bits(isa: str) -> None:
    x, weight, bias = make(9, 35, 41)
    packed, scales = pack_int8_linear(weight)
    expected = int8_linear(x, packed, scales, bias)
    transposed = x.T.contiguous().T
    wide = torch.zeros(9, 50)
    wide[:, 3:44] = x
    shifted = torch.zeros(9 * 41 + 1)[1:].view(9, 41).copy_(x)
    for other in (transposed, wide[:, 3:44], shifted):
        assert same_bits(int8_linear(other, packed, scales, bias), expected)


@pytest.mark.parametrize("shape", [(3, 700, 2600), (20, 300, 1800), (37, 700, 500), (500, 20, 1100)])
def test_any_number_of_threads_gives_the_same_bits(isa: str, shape: tuple[int, int, int]) -> None:
    x, weight, bias = make(*shape)
    packed, scales = pack_int8_linear(weight)
    one = _native.int8_linear(x, packed, scales, bias, "gelu", 1)
    for threads in (2, 3, 5):
        assert same_bits(_native.int8_linear(x, packed, scales, bias, "gelu", threads), one)


def test_calls_from_several_python_threads_do_not_disturb_each_other(two_threads: None) -> None:
    problems = [make(40 + i, 130, 140 + 16 * i, seed=i) for i in range(6)]
    packs = [pack_int8_linear(weight) for _, weight, _ in problems]
    expected = [int8_linear(x, *pack, bias) for (x, _, bias), pack in zip(problems, packs, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(int8_linear, problems[i % 6][0], *packs[i % 6], problems[i % 6][2]) for i in range(48)]
        assert all(same_bits(job.result(), expected[i % 6]) for i, job in enumerate(jobs))


def test_gelu_is_the_exact_one_within_half_a_millionth(isa: str) -> None:
    x = torch.linspace(-9, 9, 20001)[:, None]
    packed, scales = pack_int8_linear(torch.ones(1, 1))
    value = int8_linear(x, packed, scales).double()
    out = int8_linear(x, packed, scales, activation="gelu").double()
    error = (out - torch.nn.functional.gelu(value)).abs()
    assert bool((error <= 5e-7 * value.abs()).all())
    assert bool((out[value <= -5.2] == 0).all())
    assert bool((out[value >= 5.2] == value[value >= 5.2]).all())
