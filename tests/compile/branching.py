"""Small blocks with branches, in the shapes of those that inter-operator scheduling was made for."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, *kernel: int) -> nn.Module:
    """A convolution that keeps the size, and ReLU."""
    height, width = kernel if len(kernel) == 2 else 2 * kernel
    return nn.Sequential(nn.Conv2d(inputs, outputs, (height, width), padding=(height // 2, width // 2)), nn.ReLU())


class Branches(nn.Module):
    """Four branches: a convolution, two, three, and pooling before one; joined (Szegedy et al., 2016, figure 5)."""

    def __init__(self, inputs: int = 16, outputs: int = 8) -> None:
        super().__init__()
        self.one = convolution(inputs, outputs, 1)
        self.five = nn.Sequential(convolution(inputs, outputs, 1), convolution(outputs, outputs, 5))
        self.three = nn.Sequential(
            convolution(inputs, outputs, 1), convolution(outputs, outputs, 3), convolution(outputs, outputs, 3)
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), convolution(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.five(x), self.three(x), self.pooled(x)], 1)


class LastBlock(nn.Module):
    """The last block of Inception-v3, whose branches fork again (Szegedy et al., 2016, figure 7)."""

    def __init__(self, inputs: int = 8, width: int = 4) -> None:
        super().__init__()
        self.one = convolution(inputs, width, 1)
        self.three = convolution(inputs, width, 1)
        self.tower = nn.Sequential(convolution(inputs, width, 1), convolution(width, width, 3))
        self.forks = nn.ModuleList(convolution(width, width, *sides) for sides in 2 * ((1, 3), (3, 1)))
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), convolution(inputs, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        ends = 2 * [self.three(x)] + 2 * [self.tower(x)]
        forks = [fork(end) for fork, end in zip(self.forks, ends, strict=True)]
        return torch.cat([self.one(x), *forks, self.pooled(x)], 1)


class Fire(nn.Module):
    """Squeeze, and expand by two convolutions of one input (Iandola et al., 2016)."""

    def __init__(self, inputs: int = 16, narrow: int = 4, wide: int = 8) -> None:
        super().__init__()
        self.squeeze = convolution(inputs, narrow, 1)
        self.one, self.three = convolution(narrow, wide, 1), convolution(narrow, wide, 3)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.squeeze(x)
        return torch.cat([self.one(narrow), self.three(narrow)], 1)
