"""The networks of the benchmarks of compiled models, with random weights from a fixed seed where none are published."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop
from torch.nn import functional

Network = TypeVar("Network", bound=nn.Module)


def multilayer_perceptron(pairs: int, width: int = 8) -> nn.Module:
    """Pairs of a linear layer and tanh; (N, width) to (N, width)."""
    torch.manual_seed(0)
    layers = [layer for _ in range(pairs) for layer in (nn.Linear(width, width), nn.Tanh())]
    return _frozen(nn.Sequential(*layers))


class RecurrentNetwork(nn.Module):
    """One LSTM layer over a single sequence: (T, 1, 300) to (T, 1, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(300, 512)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class LoopedRecurrentNetwork(nn.Module):
    """The same as a loop of cells, which AOTInductor can compile for any length; the input projection is hoisted."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        layer = network.lstm
        self.input_weight, self.recurrent_weight = layer.weight_ih_l0, layer.weight_hh_l0
        self.bias = nn.Parameter(layer.bias_ih_l0 + layer.bias_hh_l0, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        projected = functional.linear(x[:, 0], self.input_weight, self.bias)  # (T, 2048)
        weight = self.recurrent_weight

        def unfinished(step: Tensor, hidden: Tensor, cell: Tensor, outputs: Tensor, gates: Tensor) -> Tensor:
            return step < gates.shape[0]

        def advance(step: Tensor, hidden: Tensor, cell: Tensor, outputs: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
            gate = gates.index_select(0, step.view(1)) + functional.linear(hidden, weight)
            given, forget, candidate, output = gate.chunk(4, 1)
            cell = forget.sigmoid() * cell + given.sigmoid() * candidate.tanh()
            hidden = output.sigmoid() * cell.tanh()
            return step + 1, hidden, cell, outputs.index_copy(0, step.view(1), hidden), gates.clone()

        start = torch.zeros(1, self.recurrent_weight.shape[1])
        outputs = torch.zeros(x.shape[0], start.shape[1])
        carried = (torch.zeros((), dtype=torch.int64), start, start.clone(), outputs, projected)
        return while_loop(unfinished, advance, carried)[3][:, None]


class EncoderLayer(nn.Module):
    """One post-norm transformer layer without a mask, of the same operators as MiniLM's."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.output_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, width / heads)

        attended = functional.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x))
        )
        x = self.attention_norm(x + self.attention_output(attended.transpose(1, 2).flatten(2)))
        return self.output_norm(x + self.contract(functional.gelu(self.expand(x))))


def recurrent_network() -> RecurrentNetwork:
    torch.manual_seed(0)
    return _frozen(RecurrentNetwork())


def encoder(width: int = 256, layers: int = 4, hidden: int = 1024, heads: int = 4) -> nn.Module:
    """A transformer encoder: (1, T, width) to (1, T, width)."""
    torch.manual_seed(0)
    return _frozen(nn.Sequential(*(EncoderLayer(width, heads, hidden) for _ in range(layers))))


def _frozen(network: Network) -> Network:
    return network.eval().requires_grad_(False)
