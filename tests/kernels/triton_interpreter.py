"""Compares the Triton kernel with the integer reference; a script, run with TRITON_INTERPRET=1."""

import itertools

import torch
from int8_reference import quantise_rows
from torch import Tensor

from taut.kernels import pack_triton_vector_linear, triton_vector_linear


def make(rows: int, channels: int, features: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    codes = torch.randint(-7, 8, (channels, features), dtype=torch.int8, generator=generator)
    shape = (channels, -(-features // 16))
    scales = torch.randint(0, 16, shape, dtype=torch.uint8, generator=generator)
    gammas, bias = torch.rand(channels, generator=generator), torch.randn(channels, generator=generator)
    return torch.randn(rows, features, generator=generator), codes, scales, gammas, bias


def compare(shape: tuple[int, int, int], activation: str, dtype: torch.dtype) -> None:
    x, codes, scales, gammas, bias = make(*shape)
    x = x.to(dtype)
    integers, row_scales = quantise_rows(x.float())
    folded = codes.long() * scales.long().repeat_interleave(16, dim=1)[:, : shape[2]]
    plain = (integers @ folded.T).float() * (row_scales[:, None] * gammas)
    packed = pack_triton_vector_linear(codes, scales, gammas)
    for offset, expected in ((None, plain.double()), (bias, plain.double() + bias)):
        if activation != "none":
            expected = getattr(torch.nn.functional, activation)(expected)
        out = triton_vector_linear(x, packed, gammas, offset, activation)
        assert out.dtype == dtype
        # The interpreter cuts off where a GPU rounds to bfloat16.
        relative = 1e-6 if dtype == torch.float32 else 8e-3
        torch.testing.assert_close(out.double(), expected, rtol=relative, atol=relative * float(plain.abs().max()))
        if offset is None and activation == "none" and dtype == torch.float32:
            assert torch.equal(out, plain)


def check_special_rows() -> None:
    x, codes, scales, gammas, bias = make(6, 20, 40)
    packed = pack_triton_vector_linear(codes, scales, gammas)
    clean = triton_vector_linear(x, packed, gammas, bias)
    x[0], x[1, 3], x[2, 39], x[3] = 0, float("nan"), -float("inf"), 1e-38
    out = triton_vector_linear(x.view(2, 3, 40), packed, gammas, bias).view(6, 20)
    assert torch.equal(out[[0, 3]], bias.expand(2, 20))
    assert out[1:3].isnan().all()
    assert torch.equal(out[4:], clean[4:])
    assert triton_vector_linear(x[:0], packed, gammas, bias).shape == (0, 20)


if __name__ == "__main__":
    for case in itertools.product(
        [(1, 1, 1), (3, 20, 40), (17, 70, 300), (33, 65, 129)],
        ["none", "relu", "gelu"],
        [torch.float32, torch.bfloat16],
    ):
        compare(*case)
    check_special_rows()
