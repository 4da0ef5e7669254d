"""Integer-exact linear layers with 4-bit weights in plain torch, the meaning of the native ones."""

from dataclasses import dataclass

import torch
from int8_reference import quantise_rows
from torch import Tensor

VECTOR = 16


@dataclass(frozen=True)
class VectorWeights:
    """codes (N, K) int8, scales (N, ceil(K / 16)) uint8, gammas (N,) float32."""

    codes: Tensor
    scales: Tensor
    gammas: Tensor

    def folded(self) -> Tensor:
        """Code times scale, (N, K) int64."""
        return self.codes.long() * self.scales.long().repeat_interleave(VECTOR, dim=1)[:, : self.codes.shape[1]]


def random_weights(channels: int, features: int, generator: torch.Generator) -> VectorWeights:
    """Any legal codes and scales, the extremes and zero among them."""
    return VectorWeights(
        torch.randint(-7, 8, (channels, features), dtype=torch.int8, generator=generator),
        torch.randint(0, 16, (channels, -(-features // VECTOR)), dtype=torch.uint8, generator=generator),
        torch.rand(channels, generator=generator) / 100,
    )


def quantise_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of activations to 4-bit codes under 4-bit scales: code times scale (as int64), and gammas.

    Each line is one float32 operation, rounded once, or an exact one.
    """
    rows, features = x.shape
    vectors = -(-features // VECTOR)
    padded = x.new_zeros(rows, vectors * VECTOR)
    padded[:, :features] = x
    padded = padded.view(rows, vectors, VECTOR)
    row_largest = x.abs().amax(dim=1) if features else x.new_zeros(rows)
    row_largest = torch.where(row_largest < 2.0**-100, 0.0, row_largest)
    # Not `105 / tensor`, which torch computes as a reciprocal times 105, rounding twice.
    inverse = torch.where(row_largest > 0, torch.full_like(row_largest, 105) / row_largest, 0.0)
    gammas = row_largest / 105
    inverse = inverse[:, None, None]
    largest = padded.abs().amax(dim=2, keepdim=True)
    steps = (largest * inverse) * torch.tensor(1 / 7, dtype=torch.float32)
    high = steps.ceil().clamp(1, 15)
    candidates = [_integers(padded, inverse, scale) for scale in (high, (high - 1).clamp(min=1))]
    errors = [_squared_error(padded * inverse - integers) for integers in candidates]
    integers = torch.where(errors[1] < errors[0], candidates[1], candidates[0])
    return integers.flatten(1)[:, :features].long(), gammas


def _integers(x: Tensor, inverse: Tensor, scale: Tensor) -> Tensor:
    factor = inverse * (torch.ones(()) / scale)
    return (x * factor).round().clamp(-7, 7) * scale


def _squared_error(differences: Tensor) -> Tensor:
    """Of each vector, summed in the order of the definition: numbers half the count apart are added, down to one."""
    errors = differences * differences
    while errors.shape[2] > 1:
        errors = errors[..., : errors.shape[2] // 2] + errors[..., errors.shape[2] // 2 :]
    return errors


def reference_vector_linear(x: Tensor, weights: VectorWeights, bias: Tensor | None, inputs: str) -> Tensor:
    """`x @ weight.T + bias` with x (M, K) float32 -> (M, N) float32, the bits that the kernels must give."""
    integers, row_scales = quantise_vectors(x) if inputs == "vsq4" else quantise_rows(x)
    sums = (integers @ weights.folded().T).float().double()
    scales = (row_scales[:, None] * weights.gammas).double()
    # The kernels fuse the product and the sum. In float64 the product is exact, and the sum's error is far below the
    # last float32 bit but for a halfway case that random data does not meet.
    return (sums * scales + (0.0 if bias is None else bias.double())).float()
