"""Recurrent layers and small linear layers in float32, with packed weights."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels._checks import check_inference, check_plain
from taut.kernels._load import _native

GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}
"""The cells, and how many gates a unit of each has."""

_LANES = 16


@dataclasses.dataclass(frozen=True)
class PackedRecurrent:
    """Weights of one recurrent layer in one direction, as the kernel reads them.

    A panel is 16 units with all their gates, or 64 units of a cell with one gate; missing units are zero.

    Attributes:
        cell: "lstm", "gru", "tanh" or "relu".
        hidden: number of hidden units.
        input_weights: `(panels, inputs, vectors, 16)` float32, with 3 vectors for a GRU and 4 for the others.
        hidden_weights: `(panels, hidden, vectors, 16)` float32.
        bias: `(panels, vectors, 16)` float32; the sum of both biases, but for a GRU that of the input.
        hidden_bias: `(panels, vectors, 16)` float32, for a GRU.
    """

    cell: str
    hidden: int
    input_weights: Tensor
    hidden_weights: Tensor
    bias: Tensor
    hidden_bias: Tensor | None


def pack_recurrent(
    cell: str,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> PackedRecurrent:
    """Pack one layer and direction of a `torch.nn.LSTM`, `GRU` or `RNN`.

    Args:
        cell: "lstm", "gru", "tanh" or "relu".
        weight_ih: `(gates * hidden, inputs)`, floating point; gates in the order of torch.
        weight_hh: `(gates * hidden, hidden)`, finite.
        bias_ih: `(gates * hidden,)`.
        bias_hh: `(gates * hidden,)`.

    Raises:
        KernelError: a shape or dtype does not fit, or a weight is NaN or infinite.
    """
    if cell not in GATES:
        raise KernelError(f"cell: got {cell!r}", expected="'lstm', 'gru', 'tanh' or 'relu'")
    gates = GATES[cell]
    rows = weight_hh.shape[0]
    hidden = rows // gates
    expected = {
        "weight_ih": (weight_ih, (rows, weight_ih.shape[-1])),
        "weight_hh": (weight_hh, (gates * hidden, hidden)),
        "bias_ih": (bias_ih, (rows,)),
        "bias_hh": (bias_hh, (rows,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None:
            _check_weight(name, tensor, shape)
    first = weight_hh.new_zeros(rows) if bias_ih is None else bias_ih
    second = weight_hh.new_zeros(rows) if bias_hh is None else bias_hh
    if cell != "gru":
        first = first + second

    def pack(weight: Tensor) -> Tensor:
        return _panels(weight, gates)

    return PackedRecurrent(
        cell=cell,
        hidden=hidden,
        input_weights=pack(weight_ih),
        hidden_weights=pack(weight_hh),
        bias=pack(first[:, None])[:, 0].contiguous(),
        hidden_bias=pack(second[:, None])[:, 0].contiguous() if cell == "gru" else None,
    )


def recurrent(
    x: Tensor,
    packed: PackedRecurrent,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run a recurrent layer over a sequence of any length, in one direction. Inference only.

    Args:
        x: `(steps, batch, inputs)` float32.
        packed: from `pack_recurrent`.
        h0: `(batch, hidden)` float32, the state before the first step; zero if not given.
        c0: the same for the cell state of an LSTM.
        reverse: run from the last step to the first.

    Returns:
        The states `(steps, batch, hidden)`, the last state `(batch, hidden)`, and the last cell state of an LSTM. The
        same bits on every instruction set and thread count, and for every batch and length.

    Raises:
        KernelError: a shape, dtype or device does not fit, or a gradient is asked for.

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997), with forget gates, and Cho et al., "Learning
    Phrase Representations using RNN Encoder-Decoder" (2014), in the form of torch.
    """
    tensors = {"x": x, "h0": h0, "c0": c0}
    for name, tensor in tensors.items():
        if tensor is not None:
            check_plain(name, tensor)
            check_inference("recurrent", tensor, None)
    if x.dim() != 3:
        raise KernelError(f"x: has shape {tuple(x.shape)}", expected="(steps, batch, inputs)", fix="reshape it")
    steps, batch, _ = x.shape
    y = x.new_empty(steps, batch, packed.hidden)
    h = x.new_empty(batch, packed.hidden)
    c = torch.empty_like(h) if packed.cell == "lstm" else None
    _native.recurrent(
        packed.cell,
        x.contiguous(),
        packed.input_weights,
        packed.hidden_weights,
        packed.bias,
        packed.hidden_bias,
        None if h0 is None else h0.contiguous(),
        None if c0 is None else c0.contiguous(),
        y,
        0,
        h,
        c,
        reverse,
        torch.get_num_threads(),
    )
    return y, h, c


def pack_small_linear(weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pack a linear layer for `small_linear`.

    Args:
        weight: `(out_features, in_features)`, floating point, finite.
        bias: `(out_features,)`.

    Returns:
        Weights `(panels, in_features, 4, 16)` and bias `(panels, 4, 16)`, float32; a panel is 64 output features.

    Raises:
        KernelError: a shape or dtype does not fit, or a value is NaN or infinite.
    """
    _check_weight("weight", weight, (weight.shape[0], weight.shape[-1]) if weight.dim() else ())
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    _check_weight("bias", bias, (weight.shape[0],))
    return _panels(weight, 1), _panels(bias[:, None], 1)[:, 0].contiguous()


def small_linear(x: Tensor, packed: Tensor, bias: Tensor, out_features: int, activation: str = "none") -> Tensor:
    """Compute `activation(x @ weight.T + bias)` for few rows, where reading the weights dominates. One thread.

    Args:
        x: `(rows, in_features)` float32.
        packed: `(panels, in_features, 4, 16)`, from `pack_small_linear`.
        bias: `(panels, 4, 16)`, from `pack_small_linear`.
        out_features: as packed.
        activation: "none", "relu", "tanh" or "sigmoid".

    Returns:
        `(rows, out_features)` float32. The same bits on every instruction set and for every number of rows.

    Raises:
        KernelError: a shape, dtype or device does not fit, or a gradient is asked for.
    """
    check_plain("x", x)
    check_inference("small_linear", x, None)
    y = x.new_empty(x.shape[0] if x.dim() else 0, out_features)
    _native.small_linear(x.contiguous(), packed, bias, activation, y)
    return y


def _check_weight(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    check_plain(name, tensor)
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise KernelError(
            f"{name}: has shape {tuple(tensor.shape)} and {tensor.dtype}",
            expected=f"shape {shape}, floating point",
            fix="pass the parameters of one layer and direction of the torch module",
        )
    if not bool(torch.isfinite(tensor).all()):
        raise KernelError(f"{name}: holds NaN or infinity", expected="finite values", fix="check the checkpoint")


def _panels(weight: Tensor, gates: int) -> Tensor:
    """Bring `(gates * units, features)` to `(panels, features, vectors, 16)`; one gate gives panels of 64 units."""
    weight = weight.detach().float()
    units, features = weight.shape[0] // gates, weight.shape[1]
    vectors = 4 if gates == 1 else 1
    panels = -(-units // (vectors * _LANES))
    padded = weight.new_zeros(gates, panels * vectors * _LANES, features)
    padded[:, :units] = weight.view(gates, units, features)
    # (gate, panel, vector, lane, feature) -> (panel, feature, gate, vector, lane)
    split = padded.view(gates, panels, vectors, _LANES, features).permute(1, 4, 0, 2, 3)
    return split.reshape(panels, features, gates * vectors, _LANES).contiguous()
