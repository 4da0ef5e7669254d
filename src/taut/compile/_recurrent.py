"""Recurrent layers as prebuilt kernels: one call for each layer and direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from taut.compile._block import KernelStep
from taut.compile._dims import plain, product
from taut.compile._views import View, contiguous
from taut.graph import Node, Ref
from taut.kernels import PackedRecurrent, pack_recurrent

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering

_CELLS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "tanh", "rnn_relu": "relu"}


def lower_recurrent(lowering: Lowering, node: Node) -> bool:
    """Lower an LSTM, GRU or plain recurrent layer with constant weights; returns whether it was one."""
    name = node.op.split(".")[1]
    if name not in _CELLS or not node.op.endswith(".input") or len(node.args) < 9:
        return False
    source, states, parameters, biases, layers, _, _, bidirectional, batch_first = node.args[:9]
    weights = [lowering.graph.constant(item) for item in parameters] if isinstance(parameters, tuple) else []
    directions = 2 if bidirectional else 1
    each = 4 if biases else 2
    if not isinstance(layers, int) or len(weights) != layers * directions * each:
        return False  # among others, an LSTM with a projection
    if any(weight is None or weight.dtype != torch.float32 for weight in weights):
        return False
    x = lowering.tensor(source)
    if x.rank != 3 or x.dtype != torch.float32:
        return False
    x = x.permute((1, 0, 2)) if batch_first else x
    given = [lowering.tensor(state) for state in (states if isinstance(states, tuple) else (states,))]
    steps, batch = x.sizes[:2]
    hidden = given[0].sizes[2]
    after = [
        contiguous(lowering.new(torch.float32, plain(layers * directions * batch * hidden)), state.sizes)
        for state in given
    ]
    for layer in range(layers):
        sizes = (steps, batch, plain(directions * hidden))
        y = contiguous(lowering.new(torch.float32, product(sizes)), sizes)
        dense = lowering.contiguous(x)
        for direction in range(directions):
            number = layer * directions + direction
            tensors = [weight for weight in weights[number * each : (number + 1) * each] if weight is not None]
            packed = _packed(lowering, _CELLS[name], tensors)
            before = [
                _row(state, number) if _is_one_zero(state) else lowering.contiguous(_row(state, number))
                for state in given
            ]
            output = y.narrow(2, plain(direction * hidden), hidden)
            kernel = name + ("_reverse" if direction else "")
            inputs = (dense, *packed, *before)
            outputs = (output, *(_row(state, number) for state in after))
            lowering.emit(KernelStep(kernel, inputs, outputs, lowering.label, (node.id,)))
        x = y
    for index, value in enumerate((x.permute((1, 0, 2)) if batch_first else x, *after)):
        lowering.values[Ref(node.id, index)] = value
    return True


def _packed(lowering: Lowering, cell: str, weights: list[Tensor]) -> list[View]:
    """The packed weights and biases of one layer and direction, as constants."""
    found: PackedRecurrent = lowering.memo(
        (cell, *(id(weight) for weight in weights)), lambda: pack_recurrent(cell, *weights)
    )
    parts = [found.input_weights, found.hidden_weights, found.bias]
    parts += [] if found.hidden_bias is None else [found.hidden_bias]
    return [lowering.constant(part, f"packed for {cell}") for part in parts]


def _is_one_zero(state: View) -> bool:
    """Whether one zero is seen at every place, which the kernels take as it is."""
    constant = state.buffer.constant
    return constant is not None and constant.numel() == 1 and not bool(constant.any())


def _row(state: View, number: int) -> View:
    return state.narrow(0, number, 1).drop([0])
