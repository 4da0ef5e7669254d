"""Which kernel serves a layer, and the weights as it takes them."""

from __future__ import annotations

import dataclasses
import math

import torch

from taut import kernels
from taut.numerics import Encoded, Format, Scheme
from taut.transform.quantisation._layers import QuantisableLayer

INT8_LINEAR = "taut.int8_linear.default"
VECTOR_LINEAR = "taut.vector_linear.default"
INT8_CONVOLUTION = "taut.int8_convolution.default"
VECTOR_CONVOLUTION = "taut.vector_convolution.default"


@dataclasses.dataclass(frozen=True, slots=True)
class Kernel:
    """An operator of `taut.kernels`.

    Attributes:
        op: the operator.
        inputs: its word for what it makes of its input: "int8" (a scale a token, or an image) or "vsq4".
    """

    op: str
    inputs: str = "int8"

    @property
    def encoded(self) -> bool:
        """Whether it takes encoded weights; an int8 kernel ranges to the largest magnitude of each channel."""
        return self.op in (VECTOR_LINEAR, VECTOR_CONVOLUTION)


_KERNELS = {
    ("linear", "int8-channel", "int8-channel"): Kernel(INT8_LINEAR),
    ("linear", "vsq4-v16-s4", "int8-channel"): Kernel(VECTOR_LINEAR),
    ("linear", "vsq4-v16-s4", "vsq4-v16-s4"): Kernel(VECTOR_LINEAR, "vsq4"),
    ("convolution", "int8-channel", "int8-channel"): Kernel(INT8_CONVOLUTION),
    ("convolution", "vsq4-v16-s4", "int8-channel"): Kernel(VECTOR_CONVOLUTION),
}
"""By kind of layer, weight format and activation format; "int8-channel" activations have a scale a token or image."""


def kernel_for(found: QuantisableLayer, weights: Format, activations: Format | None) -> Kernel | None:
    """The kernel for a layer; None where the formats have none, or the layer's sums could overflow it."""
    if activations is None or _depth(found) > kernels.MAX_IN_FEATURES:
        return None
    return _KERNELS.get((found.kind, weights.name, activations.name))


def kernel_kinds(scheme: Scheme) -> tuple[str, ...]:
    """The kinds of layers ("linear", "convolution") that a scheme runs on a kernel; others are emulated."""
    if scheme.activations is None:
        return ()
    formats = (scheme.weights.name, scheme.activations.name)
    return tuple(kind for kind, weights, activations in _KERNELS if (weights, activations) == formats)


def pack(kernel: Kernel, weight: torch.Tensor, encoded: Encoded | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed weight, and the scales (coarse ones, where there are two levels) of the output channels.

    Args:
        kernel: the kernel.
        weight: (out, in), or (out, in, height, width).
        encoded: the weight in its format; None for an int8 kernel, whose packing quantises by itself.
    """
    if encoded is None:
        return (kernels.pack_int8_linear if kernel.op == INT8_LINEAR else kernels.pack_int8_convolution)(weight)
    codes, scales, gammas = encoded.codes(), encoded.scale_codes(), encoded.gammas()
    assert scales is not None and gammas is not None
    packer = kernels.pack_vector_linear if kernel.op == VECTOR_LINEAR else kernels.pack_vector_convolution
    return packer(codes, scales, gammas), gammas


def _depth(found: QuantisableLayer) -> int:
    """Products that a kernel sums for an output, with the channels of each kernel position padded to whole vectors."""
    inputs = found.weight.shape[1]
    return (inputs + -inputs % 16) * math.prod(found.weight.shape[2:])
