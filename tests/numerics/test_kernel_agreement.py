"""Activations in 4 bits: the codec, the operator and the kernel of every instruction set give the same bits."""

import pytest
import torch
from torch import Tensor

from taut.kernels import available_isas, force, pack_vector_linear, vector_linear
from taut.numerics import encode


def kernel_values(x: Tensor) -> Tensor:
    """What the kernel makes of its inputs: a layer with the identity for a weight returns it."""
    features = x.shape[1]
    codes = torch.eye(features, dtype=torch.int8)
    gammas = torch.ones(features)
    packed = pack_vector_linear(codes, torch.ones(features, -(-features // 16), dtype=torch.uint8), gammas)
    return vector_linear(x, packed, gammas, inputs="vsq4")


def normal(rows: int, features: int) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(features))


CASES = {
    "normal": lambda x: x,
    "outliers": lambda x: x.sign() * (2 * x).exp(),
    "after GELU": torch.nn.functional.gelu,
    # Whole multiples of an eighth: values half way between two codes, and scales of equal error.
    "ties": lambda x: (8 * x).round() / 8,
    # From 2**-109, where a row counts as zeros, to subnormal numbers beside normal ones.
    "tiny": lambda x: x * torch.logspace(-33, -27, len(x))[:, None] * torch.logspace(0, -12, x.shape[1]),
    "huge": lambda x: x * 1e36,
}


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("features", [5, 37, 384, 1100])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_codes_its_inputs_as_the_codec_does(case: str, features: int, isa: str) -> None:
    x = CASES[case](normal(9, features))
    expected = encode(x, "vsq4-v16-s4", chooser="closest").decode()
    assert torch.equal(torch.ops.taut.fake_quantise(x, "vsq4-v16-s4", 1), expected)
    with force(isa):
        assert torch.equal(kernel_values(x), expected)
        assert torch.equal(kernel_values(x[:1]), expected[:1])  # one row has a kernel of its own


@pytest.mark.parametrize("isa", available_isas())
def test_the_same_for_bfloat16(isa: str) -> None:
    x = normal(5, 300).bfloat16()
    with force(isa):
        assert torch.equal(kernel_values(x), torch.ops.taut.fake_quantise(x, "vsq4-v16-s4", 1))
