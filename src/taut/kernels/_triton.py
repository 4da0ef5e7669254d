"""4-bit vector-scaled linear layers on a GPU, by Triton. Triton is imported at the first call.

Dai et al., "VS-Quant: Per-vector Scaled Quantization for Accurate Low-Precision Neural Network Inference"
(MLSys 2021). So far checked by Triton's interpreter on the CPU only; no GPU has run it, and no speed is claimed.
"""

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import check_inference, check_vector_weights
from taut.kernels._triton_layout import STEP, VECTOR
from taut.kernels._triton_layout import pack_triton_vector_linear as _pack
from taut.kernels._triton_load import load_kernels

_ROWS = STEP // 2 + STEP // VECTOR // 2
_FIX = "pass what pack_triton_vector_linear returned, with the inputs of that layer, on one device"


def pack_triton_vector_linear(codes: Tensor, scales: Tensor, gammas: Tensor) -> Tensor:
    """Pack 4-bit weights of a linear layer, with a scale for each vector of 16 input features, for a GPU.

    The weight of output n and input k is `codes[n, k] * scales[n, k // 16] * gammas[n]`.

    Args:
        codes: `(out_features, in_features)` int8, -7 to 7.
        scales: `(out_features, ceil(in_features / 16))` uint8, 0 to 15.
        gammas: `(out_features,)` float32, finite; given to the kernel, and only checked here.

    Returns:
        `(ceil(in_features / 128), 68, out_features)` uint8, on the device of `codes`: 4.25 bits a weight.

    Raises:
        KernelError: a shape, dtype or value is not as above.
    """
    check_vector_weights(codes, scales, gammas, ("out_features", "in_features"))
    return _pack(codes, scales)


def triton_vector_linear(
    x: Tensor, packed: Tensor, gammas: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """Compute `activation(x @ weight.T + bias)` on a GPU, with 4-bit weights and rows of `x` quantised to int8.

    Rows are quantised as by `int8_linear`, and sums of integers are exact. Inference only.

    Args:
        x: `(..., in_features)` float32 or bfloat16 on a CUDA device, or on the CPU under TRITON_INTERPRET=1.
        packed: uint8, from `pack_triton_vector_linear`.
        gammas: `(out_features,)` float32.
        bias: `(out_features,)` float32.
        activation: `"none"`, `"relu"` or `"gelu"` (the exact one, with erf).

    Returns:
        `(..., out_features)`, of the dtype of `x`.

    Raises:
        KernelError: triton is not installed, shapes, dtypes or devices do not fit, or a gradient is asked for.
    """
    _check(x, packed, gammas, bias, activation)
    kernels = load_kernels("_triton_vector_linear", x, "vector_linear")
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    return kernels.launch(flat, packed, gammas, bias, activation).view(*x.shape[:-1], gammas.numel())


def _check(x: Tensor, packed: Tensor, gammas: Tensor, bias: Tensor | None, activation: str) -> None:
    if x.dim() == 0 or x.shape[-1] == 0 or x.dtype not in (torch.float32, torch.bfloat16):
        raise KernelError(
            f"x: has shape {tuple(x.shape)} and {x.dtype}",
            expected="(..., in_features) in float32 or bfloat16",
            fix="convert it with tensor.to(torch.float32)",
        )
    channels = gammas.shape[0] if gammas.dim() == 1 else -1
    expected = [
        ("gammas", gammas, (channels,), torch.float32),
        ("packed", packed, (-(-x.shape[-1] // STEP), _ROWS, channels), torch.uint8),
    ]
    if bias is not None:
        expected.append(("bias", bias, (channels,), torch.float32))
    for name, tensor, shape, dtype in expected:
        if tensor.shape != shape or tensor.dtype != dtype or tensor.device != x.device or not tensor.is_contiguous():
            raise KernelError(
                f"{name}: has shape {tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}",
                expected=f"{shape}, {dtype} on {x.device}, contiguous",
                fix=_FIX,
            )
    if activation not in ("none", "relu", "gelu"):
        raise KernelError(f"activation: got {activation!r}", expected="'none', 'relu' or 'gelu'")
    check_inference("triton_vector_linear", x, bias)
