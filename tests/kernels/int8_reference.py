"""An integer-exact int8 linear layer in plain torch, the meaning of the native one."""

import torch
from torch import Tensor


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of activations, symmetric in float32: integers (as int64) and scales."""
    largest = x.abs().amax(dim=1) if x.shape[1] else x.new_zeros(x.shape[0])
    # Not `127 / largest`, which torch computes as a reciprocal times 127, rounding twice.
    inverse = torch.full_like(largest, 127) / largest
    integers = torch.where(largest[:, None] > 0, x * inverse[:, None], 0.0).round()
    return integers.long(), largest / 127


def quantise_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of weights, symmetric in float64: integers (as int64) and scales."""
    weight = weight.double()
    largest = weight.abs().amax(dim=1) if weight.shape[1] else weight.new_zeros(weight.shape[0])
    ratio = torch.where(largest[:, None] > 0, weight / largest[:, None], 0.0)
    return (ratio * 127).round().long(), largest / 127


def reference_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """`activation(x @ weight.T + bias)`: x (M, K) and weight (N, K) float32 -> (M, N) float64."""
    x_integers, x_scales = quantise_rows(x)
    weight_integers, weight_scales = quantise_channels(weight)
    sums = (x_integers @ weight_integers.T).double()
    out = sums * (x_scales[:, None].double() * weight_scales)
    if bias is not None:
        out = out + bias.double()
    if activation == "relu":
        out = out.relu()
    if activation == "gelu":
        out = torch.nn.functional.gelu(out)
    return out
