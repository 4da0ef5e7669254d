"""Small models to capture: a residual network, an encoder of dynamic length, and a mobile block."""

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Stem, one residual block, one block with a parameter-free shortcut, pooling, head."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 8, 1), (8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, s, 1, bias=False) for i, o, s in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _ in widths)
        self.head = nn.Linear(16, 10)

    def step(self, index: int, x: torch.Tensor) -> torch.Tensor:
        return self.norms[index](self.convolutions[index](x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.step(0, x))
        x = functional.relu(self.step(2, functional.relu(self.step(1, x))) + x)
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = functional.relu(self.step(4, functional.relu(self.step(3, x))) + shortcut)
        return self.head(functional.avg_pool2d(x, 8).flatten(1))


class Encoder(nn.Module):
    """Embedding, one layer of attention and feed-forward with a padding mask made from finfo.min, masked mean."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(50, width)
        self.position = nn.Embedding(64, width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        q, k, v = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        x = self.first(x + self.out(attended))
        x = self.second(x + self.down(functional.gelu(self.up(x))))
        weight = mask[:, :, None].float()
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1.0)


class Mobile(nn.Module):
    """Inverted residual: pointwise, depthwise and pointwise convolution; returns an image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            nn.Conv2d(16, 8, 1),
            nn.BatchNorm2d(8),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def settled(model: nn.Module) -> nn.Module:
    """The model with batch statistics as after training: no norm is the identity."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()
