"""The networks of the benchmarks of compiled models, with random weights from a fixed seed where none are published."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from examples import minilm
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
        weights = {name: cast(Tensor, getattr(layer, f"{name}_l0")) for name in ("weight_ih", "weight_hh")}
        bias = cast(Tensor, layer.bias_ih_l0) + cast(Tensor, layer.bias_hh_l0)
        self.input_weight, self.recurrent_weight, self.bias = (
            nn.Parameter(value, requires_grad=False) for value in (*weights.values(), bias)
        )

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


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project; a shortcut where sizes allow."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.shortcut = stride == 1 and channels_in == channels_out
        expand = [convolution(channels_in, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        depthwise = [convolution(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        self.layers = nn.Sequential(*expand, *depthwise, convolution(hidden, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class InceptionBlock(nn.Module):
    """GoogLeNet's module 3a: (N, 192, 28, 28) to (N, 256, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(convolution(192, 64, 1), nn.ReLU())
        self.three = nn.Sequential(convolution(192, 96, 1), nn.ReLU(), convolution(96, 128, 3), nn.ReLU())
        self.five = nn.Sequential(convolution(192, 16, 1), nn.ReLU(), convolution(16, 32, 5), nn.ReLU())
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(192, 32, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def convolution(channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution that keeps the size of the image at stride 1, with its batch norm folded."""
    return nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups)


def mobile_network() -> nn.Module:
    """MobileNetV2 (Sandler et al., table 2), batch norm folded: (N, 3, 224, 224) to (N, 1000)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [convolution(3, 32, 3, 2), nn.ReLU6()]
    width = 32
    # Expansion, channels, blocks, stride of the first.
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, channels, blocks, stride in table:
        for block in range(blocks):
            layers.append(InvertedResidual(width, channels, stride if block == 0 else 1, expansion))
            width = channels
    layers += [convolution(width, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return _frozen(nn.Sequential(*layers))


def inception_block() -> nn.Module:
    torch.manual_seed(0)
    return _frozen(InceptionBlock())


def recurrent_network() -> RecurrentNetwork:
    torch.manual_seed(0)
    return _frozen(RecurrentNetwork())


def encoder(width: int = 256, layers: int = 4, hidden: int = 1024, heads: int = 4) -> nn.Module:
    """A transformer encoder: (1, T, width) to (1, T, width)."""
    torch.manual_seed(0)
    return _frozen(nn.Sequential(*(minilm.Layer(width, heads, hidden) for _ in range(layers))))


def _frozen(network: Network) -> Network:
    return network.eval().requires_grad_(False)
