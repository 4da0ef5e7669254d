"""Each code, scale and sum lies where the layout says."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_reference import random_weights

from taut.kernels import pack_vector_linear


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 400), st.integers(0, 2**31))
def test_the_layout_holds_each_code_each_scale_the_sums_and_the_depth(channels: int, features: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = random_weights(channels, features, generator)
    packed = pack_vector_linear(weights.codes, weights.scales, weights.gammas)
    blocks, vectors = -(-channels // 16), -(-features // 32) * 2
    assert packed.shape == (blocks, -(-vectors // 8) * 64 + vectors * 128 + 128)
    assert (packed.dtype, packed.is_contiguous()) == (torch.int8, True)

    bytes_of = packed.view(torch.uint8)
    for _ in range(20):
        n = int(torch.randint(channels, (), generator=generator))
        k = int(torch.randint(features, (), generator=generator))
        block, channel, vector, place = n // 16, n % 16, k // 16, k % 16
        span = vector // 8 * (64 + 8 * 128)
        scales = int(bytes_of[block, span + 4 * channel + vector % 8 // 2])
        assert scales >> 4 * (vector % 2) & 15 == weights.scales[n, vector]
        line = span + 64 + vector % 8 * 128 + place // 8 * 64
        codes = int(bytes_of[block, line + 4 * channel + place % 4])
        assert (codes >> place % 8 // 4 * 4 & 15) - 8 == weights.codes[n, k]

    sums, depths = packed[:, -128:].contiguous().view(torch.int32).view(blocks, 2, 16).unbind(1)
    assert torch.equal(sums.reshape(-1)[:channels].long(), weights.folded().sum(dim=1))
    assert not sums.reshape(-1)[channels:].any()
    assert bool((depths == features).all())


def test_the_size_is_four_and_a_quarter_bits_a_weight_and_one_trailer_a_block() -> None:
    weights = random_weights(512, 512, torch.Generator().manual_seed(0))
    packed = pack_vector_linear(weights.codes, weights.scales, weights.gammas)
    assert packed.numel() == 512 * 512 * 4.25 / 8 + 512 // 16 * 128


def test_no_channels_or_no_features() -> None:
    for channels, features in ((0, 40), (5, 0)):
        weights = random_weights(channels, features, torch.Generator().manual_seed(0))
        packed = pack_vector_linear(weights.codes, weights.scales, weights.gammas)
        assert packed.shape == (-(-channels // 16), 128 + (704 - 128 if features else 0))
