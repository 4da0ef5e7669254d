"""Networks of many small operators at batch 1: blocks with random weights, in the sizes that the papers use."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Module:
    """A convolution with the batch normalisation folded, and ReLU."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (sides[0] // 2, sides[1] // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, sides, stride, padding), nn.ReLU())


class Separable(nn.Module):
    """ReLU, a depthwise convolution, a pointwise one with the normalisation folded."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(torch.relu(x)))


class RandomlyWired(nn.Module):
    """A stage of RandWire: each node is a separable convolution of the sum of its inputs (Xie et al., 2019).

    Args:
        edges: between nodes, from lower to higher numbers.
        nodes: how many.
        channels: of every node.
    """

    def __init__(self, edges: list[tuple[int, int]], nodes: int, channels: int) -> None:
        super().__init__()
        self.before = [[a for a, b in edges if b == node] for node in range(nodes)]
        self.last = sorted(set(range(nodes)) - {a for a, _ in edges})
        self.layers = nn.ModuleList(Separable(channels) for _ in range(nodes))

    def forward(self, x: Tensor) -> Tensor:
        values: list[Tensor] = []
        for before, layer in zip(self.before, self.layers, strict=True):
            values.append(layer(sum((values[node] for node in before[1:]), values[before[0]]) if before else x))
        return sum((values[node] for node in self.last[1:]), values[self.last[0]]) / len(self.last)


class InceptionA(nn.Module):
    """Four branches: 1x1; 1x1 and 5x5; 1x1, 3x3 and 3x3; pooling and 1x1 (Szegedy et al., 2016, figure 5)."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, before_five, five, before_three, three, pooled = widths
        self.one = _convolution(inputs, one, 1)
        self.five = nn.Sequential(_convolution(inputs, before_five, 1), _convolution(before_five, five, 5))
        self.three = nn.Sequential(
            _convolution(inputs, before_three, 1), _convolution(before_three, three, 3), _convolution(three, three, 3)
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), _convolution(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.five(x), self.three(x), self.pooled(x)], 1)


class InceptionE(nn.Module):
    """The last block of Inception-v3, whose branches fork again (Szegedy et al., 2016, figure 7)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = _convolution(inputs, 320, 1)
        self.three = _convolution(inputs, 384, 1)
        self.three_forks = nn.ModuleList(_convolution(384, 384, sides) for sides in ((1, 3), (3, 1)))
        self.tower = nn.Sequential(_convolution(inputs, 448, 1), _convolution(448, 384, 3))
        self.tower_forks = nn.ModuleList(_convolution(384, 384, sides) for sides in ((1, 3), (3, 1)))
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), _convolution(inputs, 192, 1))

    def forward(self, x: Tensor) -> Tensor:
        three, tower = self.three(x), self.tower(x)
        forks = [*(fork(three) for fork in self.three_forks), *(fork(tower) for fork in self.tower_forks)]
        return torch.cat([self.one(x), *forks, self.pooled(x)], 1)


class NasnetCell(nn.Module):
    """The normal cell of NASNet-A on two inputs (Zoph et al., 2018, figure 4), each separable convolution once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(_convolution(channels, channels, 1) for _ in range(2))
        self.separable = nn.ModuleList(Separable(channels, kernel) for kernel in (3, 5, 3, 5, 3))
        self.pool = nn.AvgPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        before, here = self.inputs[0](x), self.inputs[1](x)
        three, five, before_three, before_five, before_last = list(self.separable)
        results = [
            three(here) + here,
            before_three(before) + five(here),
            self.pool(here) + before,
            self.pool(before) + self.pool(before),
            before_five(before) + before_last(before),
        ]
        return torch.cat([before, *results], 1)


class SqueezeNet(nn.Module):
    """The fire modules of SqueezeNet 1.1 from 55x55 on (Iandola et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128))
        widths += ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256))
        self.squeeze = nn.ModuleList(_convolution(inputs, narrow, 1) for inputs, narrow, _ in widths)
        self.one = nn.ModuleList(_convolution(narrow, wide, 1) for _, narrow, wide in widths)
        self.three = nn.ModuleList(_convolution(narrow, wide, 3) for _, narrow, wide in widths)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        for number, (squeeze, one, three) in enumerate(zip(self.squeeze, self.one, self.three, strict=True)):
            narrow = squeeze(x)
            x = torch.cat([one(narrow), three(narrow)], 1)
            if number in (1, 3):
                x = self.pool(x)
        return x


def read_edges(path: Path) -> tuple[int, list[tuple[int, int]]]:
    """A graph file of IOS: the number of nodes, of edges, then the edges."""
    numbers = [int(word) for word in path.read_text().split()]
    pairs = numbers[2 : 2 + 2 * numbers[1]]
    return numbers[0], list(zip(pairs[::2], pairs[1::2], strict=True))


def random_edges(nodes: int = 32, count: int = 64, seed: int = 0) -> tuple[int, list[tuple[int, int]]]:
    """A graph like those of the files, where they are not at hand."""
    draw = random.Random(seed)
    pairs = [(a, b) for b in range(nodes) for a in range(b) if b - a < nodes // 3]
    return nodes, sorted(draw.sample(pairs, count))


def network(name: str, graphs: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network with random weights, always the same, and the shape of its input.

    Args:
        name: one of `NETWORKS`.
        graphs: the folder with the graph files of RandWire; "" for a made-up graph.
    """
    torch.manual_seed(0)
    nodes, edges = read_edges(Path(graphs) / "ws-32-4-0.75-4.txt") if graphs else random_edges()
    made: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
        "RandWire stage": lambda: (RandomlyWired(edges, nodes, 78), (1, 78, 14, 14)),
        "small Inception": lambda: (InceptionA(128, (32, 24, 24, 16, 16, 24)), (1, 128, 14, 14)),
        "Inception A": lambda: (InceptionA(192, (64, 48, 64, 64, 96, 32)), (1, 192, 35, 35)),
        "Inception E": lambda: (InceptionE(1280), (1, 1280, 8, 8)),
        "NASNet-A cell": lambda: (NasnetCell(88), (1, 88, 14, 14)),
        "SqueezeNet": lambda: (SqueezeNet(), (1, 64, 55, 55)),
    }
    module, shape = made[name]()
    return module.eval(), shape


NETWORKS = ("RandWire stage", "small Inception", "Inception A", "Inception E", "NASNet-A cell", "SqueezeNet")
