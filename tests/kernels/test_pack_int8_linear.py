"""The packed layout, and what packing refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_reference import quantise_channels

from taut.errors import KernelError
from taut.kernels import MAX_IN_FEATURES, pack_int8_linear


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**31))
def test_the_layout_holds_each_weight_the_sums_and_the_depth(channels: int, features: int, seed: int) -> None:
    weight = torch.randn(channels, features, generator=torch.Generator().manual_seed(seed))
    packed, scales = pack_int8_linear(weight)
    blocks, groups = -(-channels // 16), -(-features // 4)
    assert packed.shape == (blocks, groups + 2, 16, 4)
    assert packed.dtype == torch.int8
    assert packed.is_contiguous()
    unpacked = packed[:, :-2].transpose(1, 2).reshape(blocks * 16, groups * 4)
    integers, expected_scales = quantise_channels(weight)
    torch.testing.assert_close(scales.double(), expected_scales, rtol=1e-7, atol=0)
    assert torch.equal(unpacked[:channels, :features].long(), integers)
    assert not unpacked[channels:].any()
    assert not unpacked[:, features:].any()
    sums, depths = packed[:, -2:].contiguous().view(torch.int32).view(blocks, 2, 16).unbind(1)
    assert torch.equal(sums.reshape(-1), unpacked.sum(dim=1, dtype=torch.int32))
    assert bool((depths == features).all())


@pytest.mark.parametrize("largest", [1e-42, 1e-38, 1.0, 3e38])
def test_the_largest_weight_becomes_127_whatever_its_size(largest: float) -> None:
    packed, scales = pack_int8_linear(torch.tensor([[largest, -largest, 0]]))
    assert packed[0, 0, 0].tolist() == [127, -127, 0, 0]
    torch.testing.assert_close(scales * 127, torch.tensor([largest]), rtol=1e-6, atol=1e-43)


def test_a_channel_too_small_for_a_scale_becomes_zero() -> None:
    packed, scales = pack_int8_linear(torch.tensor([[1e-45]]))
    assert not packed[:, :-1].any()
    assert not scales.any()


def test_other_float_types_are_converted() -> None:
    weight = torch.randn(5, 6, dtype=torch.float64)
    packed, scales = pack_int8_linear(weight.to(torch.bfloat16))
    expected, expected_scales = pack_int8_linear(weight.to(torch.bfloat16).float())
    assert torch.equal(packed, expected)
    assert torch.equal(scales, expected_scales)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), "shape"),
        (torch.ones(3, 3, dtype=torch.int8), "int8"),
        (torch.ones(1, MAX_IN_FEATURES + 1), "input features"),
        (torch.tensor([[float("nan")]]), "NaN"),
        (torch.tensor([[float("inf")]]), "infinity"),
    ],
)
def test_refuses(weight: torch.Tensor, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        pack_int8_linear(weight)
