"""The convolutions compute what the integer-exact reference says, with the same bits everywhere."""

from collections.abc import Callable

import pytest
import torch
from convolution_reference import Geometry, fold_codes, reference_convolution
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from int8_reference import quantise_channels
from torch import Tensor

from taut.kernels import (
    MAX_IN_FEATURES,
    available_isas,
    force,
    int8_convolution,
    pack_int8_convolution,
    pack_vector_convolution,
    vector_convolution,
)
from taut.kernels._load import _native

CODINGS = ("int8", "vectors")


def pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


problems = st.fixed_dictionaries(
    {
        "coding": st.sampled_from(CODINGS),
        "images": st.integers(0, 4),
        "channels": st.integers(1, 40),
        "out_channels": st.integers(1, 90),
        "size": pair(1, 12),
        "geometry": st.builds(Geometry, pair(1, 4), pair(1, 5), pair(0, 4), pair(1, 3)),
        "activation": st.sampled_from(["none", "relu"]),
        "bias": st.booleans(),
        "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
        "seed": st.integers(0, 2**31),
    }
)


class Weights:
    """Random weights of one convolution: what the reference takes, and the call of the kernel."""

    integers: Tensor  # (O, taps, C)
    scales: Tensor  # (O,)
    run: Callable[..., Tensor]
    native: Callable[..., Tensor]

    def __init__(self, coding: str, channels: int, features: int, geometry: Geometry, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        taps = geometry.kernel_size[0] * geometry.kernel_size[1]
        self.bias = torch.randn(channels, generator=generator)
        self.geometry = geometry
        if coding == "int8":
            weight = torch.randn(channels, features, *geometry.kernel_size, generator=generator)
            integers, _ = quantise_channels(weight.flatten(1))
            self.integers = integers.view(channels, features, taps).transpose(1, 2)
            self.packed, self.scales = pack_int8_convolution(weight)
            self.run, self.native = int8_convolution, _native.int8_convolution
        else:
            codes = torch.randint(-7, 8, (channels, taps, features), dtype=torch.int8, generator=generator)
            shape = (channels, taps, -(-features // 16))
            scales = torch.randint(0, 16, shape, dtype=torch.uint8, generator=generator)
            self.scales = torch.rand(channels, generator=generator)
            self.integers = fold_codes(codes, scales)
            self.packed = pack_vector_convolution(codes, scales, self.scales)
            self.run, self.native = vector_convolution, _native.vector_convolution

    def __call__(self, x: Tensor, activation: str = "none", bias: bool = True) -> Tensor:
        geometry = self.geometry._asdict()
        return self.run(x, self.packed, self.scales, self.bias if bias else None, **geometry, activation=activation)

    def on_threads(self, x: Tensor, threads: int) -> Tensor:
        return self.native(x, self.packed, self.scales, self.bias, *self.geometry, "gelu", threads)


def same_bits(a: Tensor, b: Tensor) -> bool:
    integer = torch.int32 if a.dtype == torch.float32 else torch.int16
    same = a.dtype == b.dtype and a.shape == b.shape
    return same and torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(problems)
def test_every_isa_gives_the_bits_of_the_integer_reference(problem: dict) -> None:
    geometry = problem["geometry"]
    for size, kernel, padding, dilation in zip(
        problem["size"], geometry.kernel_size, geometry.padding, geometry.dilation, strict=True
    ):
        assume(size + 2 * padding > dilation * (kernel - 1))
    weights = Weights(problem["coding"], problem["out_channels"], problem["channels"], geometry, problem["seed"])
    x = image(problem["images"], problem["channels"], *problem["size"], seed=problem["seed"]).to(problem["dtype"])
    bias = weights.bias if problem["bias"] else None
    expected = reference_convolution(x.float(), weights.integers, weights.scales, bias, geometry)
    if problem["activation"] == "relu":
        expected = expected.relu()
    for isa in available_isas():
        with force(isa):
            assert same_bits(weights(x, problem["activation"], problem["bias"]), expected.to(problem["dtype"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_is_that_of_the_linear_kernel_on_every_isa(dtype: torch.dtype) -> None:
    weights = Weights("int8", 21, 10, Geometry((2, 2)))
    x = image(2, 10, 5, 6).to(dtype)
    before = weights(x).double()
    outputs = []
    for isa in available_isas():
        with force(isa):
            outputs.append(weights(x, "gelu"))
    error = (outputs[0].double() - torch.nn.functional.gelu(before)).abs()
    assert bool((error <= (1e-6 if dtype == torch.float32 else 1e-2) * before.abs()).all())
    assert all(same_bits(outputs[0], other) for other in outputs[1:])


def test_no_images_and_no_output_channels_give_empty_results() -> None:
    weights = Weights("int8", 7, 3, Geometry((2, 2)))
    assert weights(image(0, 3, 5, 4)).shape == (0, 7, 4, 3)
    empty = torch.zeros(0)
    packed, _ = pack_int8_convolution(torch.zeros(0, 3, 2, 2))
    assert int8_convolution(image(2, 3, 5, 4), packed, empty, kernel_size=(2, 2)).shape == (2, 0, 4, 3)
    packed = pack_vector_convolution(torch.zeros(0, 4, 3, dtype=torch.int8), torch.zeros(0, 4, 1).byte(), empty)
    assert vector_convolution(image(2, 3, 5, 4), packed, empty, kernel_size=(2, 2)).shape == (2, 0, 4, 3)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_result_is_that_of_torch_up_to_quantisation(coding: str) -> None:
    geometry = Geometry((3, 2), (2, 1), (1, 2), (1, 3))
    weights = Weights(coding, 24, 20, geometry)
    x = image(2, 20, 11, 13)
    weight = (weights.integers * weights.scales[:, None, None]).transpose(1, 2).reshape(24, 20, 3, 2)
    expected = torch.nn.functional.conv2d(x, weight, weights.bias, *geometry[1:])
    assert (weights(x) - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("seed", range(3))
def test_bands_of_large_images_and_several_images_to_a_band(isa: str, coding: str, seed: int) -> None:
    images, channels, size = ((1, 48, 110), (9, 30, 40), (3, 7, 200))[seed]
    weights = Weights(coding, 5, channels, Geometry((3, 3), (2, 1), (1, 1), (1, 2)))
    x = image(images, channels, size, size) * torch.arange(1, images + 1)[:, None, None, None]
    expected = reference_convolution(x, weights.integers, weights.scales, weights.bias, weights.geometry)
    assert same_bits(weights(x), expected)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("shape", "channels"), [((3, 64, 20, 20), 70), ((1, 64, 30, 30), 20), ((1, 130, 5, 5), 400)])
def test_any_number_of_threads_gives_the_same_bits(
    isa: str, coding: str, shape: tuple[int, ...], channels: int
) -> None:
    weights = Weights(coding, channels, shape[1], Geometry((3, 3), (1, 1), (1, 1)))
    x = image(*shape).contiguous(memory_format=torch.channels_last)
    one = weights.on_threads(x, 1)
    for threads in (2, 3, 5):
        assert same_bits(weights.on_threads(x, threads), one)


@pytest.mark.parametrize("coding", CODINGS)
def test_any_strides_give_the_same_bits_in_channels_last(isa: str, coding: str) -> None:
    weights = Weights(coding, 19, 6, Geometry((3, 3)))
    x = image(2, 6, 9, 8)
    expected = weights(x)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    wide = torch.zeros(2, 7, 9, 20)
    wide[:, 1:, :, 2:18:2] = x
    shifted = torch.zeros(x.numel() + 1)[1:].view(2, 9, 8, 6).permute(0, 3, 1, 2).copy_(x)
    for other in (x.contiguous(memory_format=torch.channels_last), wide[:, 1:, :, 2:18:2], shifted):
        assert same_bits(weights(other), expected)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_an_image_with_nan_or_infinity_becomes_nan_and_no_other_changes(
    isa: str, coding: str, poison: float, activation: str
) -> None:
    weights = Weights(coding, 33, 5, Geometry((2, 2), padding=(1, 1)))
    x = image(3, 5, 6, 6)
    clean = weights(x, activation)
    x[1, 4, 5, 5] = poison
    out = weights(x, activation)
    assert out[1].isnan().all()
    assert same_bits(out[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-38])
def test_an_image_of_zeros_or_nearly_gives_the_bias(isa: str, coding: str, value: float) -> None:
    weights = Weights(coding, 19, 3, Geometry((3, 3), padding=(1, 1)))
    out = weights(torch.full((1, 3, 4, 4), value))
    assert same_bits(out, weights.bias[None, :, None, None].expand(1, 19, 4, 4))


def test_padding_is_exact_zero(isa: str) -> None:
    packed, scales = pack_int8_convolution(torch.ones(1, 1, 3, 3))
    out = int8_convolution(torch.ones(1, 1, 2, 2), packed, scales, kernel_size=(3, 3), padding=(2, 2))
    counts = torch.tensor([1.0, 2.0, 2.0, 1.0])
    torch.testing.assert_close(out[0, 0], counts[:, None] * counts, rtol=1e-6, atol=0)


def test_the_most_and_largest_products_do_not_overflow(isa: str) -> None:
    channels = MAX_IN_FEATURES // 4
    x = torch.ones(2, channels, 2, 2)
    x[1] = -1
    packed, scales = pack_int8_convolution(torch.ones(1, channels, 2, 2))
    expected = torch.tensor([1.0, -1.0])[:, None, None, None] * MAX_IN_FEATURES
    torch.testing.assert_close(int8_convolution(x, packed, scales, kernel_size=(2, 2)), expected, rtol=1e-6, atol=0)
    codes = torch.full((1, 4, channels), -7, dtype=torch.int8)
    vector_scales = torch.full((1, 4, channels // 16), 15, dtype=torch.uint8)
    packed = pack_vector_convolution(codes, vector_scales, torch.ones(1))
    out = vector_convolution(x, packed, torch.ones(1), kernel_size=(2, 2))
    torch.testing.assert_close(out, -105 * expected, rtol=1e-6, atol=0)


def test_every_code_and_scale_is_expanded_exactly(isa: str) -> None:
    """One output channel for each scale, one input channel for each code; the image picks one code at a time."""
    codes = torch.arange(-7, 8, dtype=torch.int8).expand(16, 1, 15)
    scales = torch.arange(16, dtype=torch.uint8).view(16, 1, 1)
    packed = pack_vector_convolution(codes, scales, torch.ones(16))
    out = vector_convolution(torch.eye(15)[:, :, None, None] * 127, packed, torch.ones(16), kernel_size=(1, 1))
    assert torch.equal(out[:, :, 0, 0], torch.arange(-7.0, 8.0)[:, None] * torch.arange(16.0) * 127)


def test_packed_sizes() -> None:
    packed, scales = pack_int8_convolution(image(20, 6, 3, 3))
    assert (packed.shape, scales.shape) == ((2, 9 * 2 + 2, 16, 4), (20,))
    weights = Weights("vectors", 32, 64, Geometry((3, 3)))
    assert weights.packed.nbytes * 8 == weights.integers.numel() * 4.25 + 2 * 128 * 8
