"""Small instances of real architectures, for the tests of every room."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn
from torch._higher_order_ops import while_loop
from torch.export import Dim

from taut.graph import Graph, capture


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model with its inputs.

    Attributes:
        build: makes the module; weights depend on the random state only.
        inputs: makes the arguments at a size, usually the batch size or the length.
        dynamic_shapes: what torch.export takes.
        sizes: sizes at which to compare with the module; the first is the one to capture at.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...]]
    dynamic_shapes: Any
    sizes: tuple[int, ...]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu_(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network for 3-channel images (He et al., Deep Residual Learning, 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(ResidualBlock(8, 8, 1), ResidualBlock(8, 16, 2))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(functional.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class DepthwiseNet(nn.Module):
    """Depthwise separable convolutions (Howard et al., MobileNets, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding="same", groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.norm(self.depthwise(functional.silu(self.stem(x)))))
        return self.head(self.pointwise(x).mean((2, 3))).log_softmax(-1)


class InceptionBlock(nn.Module):
    """Parallel branches, concatenated (Szegedy et al., Going Deeper with Convolutions, 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(6, 4, 1)
        self.three = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1))
        self.five = nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 5, padding=2))
        self.pool = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.pool(functional.max_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([self.one(x), self.three(x), self.five(x), pooled], 1).relu()


class Encoder(nn.Module):
    """A transformer encoder over token ids, mean-pooled under a mask; returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.positions = nn.Embedding(64, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = self.layers(x, src_key_padding_mask=mask == 0)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return {"hidden": x, "pooled": (x * weight).sum(1) / weight.sum(1).clamp(min=1e-6)}


class LoopLSTM(nn.Module):
    """An LSTM cell run over a dynamic length by while_loop; (T, B, 6) to (B, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.size(0)
        state = (torch.tensor(0), x.new_zeros(x.size(1), 8), x.new_zeros(x.size(1), 8))

        def condition(index: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return index < length

        def body(index: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
            token = torch.index_select(x, 0, index.reshape(1)).squeeze(0)
            h, c = self.cell(token, (h, c))
            return index + 1, h, c

        return while_loop(condition, body, state)[1]  # pyright: ignore


class RecurrentTagger(nn.Module):
    """Whole recurrent layers: a two-layer bidirectional LSTM, then a GRU; a tuple of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(10, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, state = self.gru(self.lstm(x)[0])
        return outputs, state


class UNet(nn.Module):
    """Down, up, and across (Ronneberger et al., U-Net, 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.across = nn.Conv2d(12, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        up = functional.interpolate(self.bottom(skip), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(self.across(torch.cat([skip, up], 1)).relu())


class Upsampler(nn.Module):
    """Transposed convolutions with stride, groups and output padding, then pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.second = nn.ConvTranspose2d(6, 8, 4, stride=2, padding=1, bias=False)
        self.one = nn.ConvTranspose1d(8, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.pixel_shuffle(functional.leaky_relu(self.second(functional.elu(self.first(x)))), 2)
        return self.one(functional.pixel_unshuffle(y, 2).flatten(2))


class GatedCell(nn.Module):
    """One step of a GRU cell, with a convolutional gate on the side; a tied linear layer at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 6)
        self.cell = nn.GRUCell(6, 7)
        self.gate = nn.Conv1d(1, 2, 3, padding=1)
        self.leave = nn.Linear(6, 6)
        self.leave.weight = self.enter.weight

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        new = self.cell(self.enter(x), state)
        gate = self.gate(new.unsqueeze(1)).sigmoid()
        return self.leave(x), [new, gate]


class Detector(nn.Module):
    """Scores anchors, keeps those over a threshold (a data-dependent number) and decodes their boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 1)
        self.box = nn.Linear(8, 4)

    def forward(self, features: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.score(features).squeeze(-1).sigmoid()
        kept = torch.nonzero(scores > threshold).squeeze(-1)
        torch._check(kept.shape[0] <= 12)
        boxes = self.box(features[kept])
        return torch.cat([boxes[:, :2] - boxes[:, 2:].exp(), boxes[:, 2:]], 1), scores[kept]


class AttentionBlock(nn.Module):
    """Causal self-attention with grouped queries through einsum projections."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.mix = nn.Parameter(torch.randn(16, 16) / 4)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 8)).unbind(-3)
        q, k, v = (item.transpose(1, 2) for item in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + torch.einsum("btc,cd->btd", y.transpose(1, 2).flatten(2), self.mix)


class Branching(nn.Module):
    """torch.cond on a size."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(6, 6)
        self.narrow = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.shape[0] > 4, lambda x: self.wide(x).relu(), lambda x: self.narrow(x), (x,))


def _ids(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(3 * length).reshape(3, length) % 50
    mask = torch.ones(3, length, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    return ids, mask


def _detector_inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 8), torch.tensor(0.6)


def _batch(maximum: int = 8) -> Dim:
    return Dim("batch", min=2, max=maximum)


def _length(maximum: int) -> Dim:
    return Dim("length", min=2, max=maximum)


ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture(mlp, lambda n: (torch.randn(n, 12),), ({0: _batch()},), (4, 2, 8)),
    "resnet": Architecture(ResNet, lambda n: (torch.randn(n, 3, 12, 12),), ({0: _batch()},), (3, 2, 8)),
    "depthwise": Architecture(DepthwiseNet, lambda n: (torch.randn(n, 3, 10, 10),), ({0: _batch()},), (3, 2)),
    "inception": Architecture(InceptionBlock, lambda n: (torch.randn(n, 6, 7, 7),), ({0: _batch()},), (3, 2)),
    "encoder": Architecture(Encoder, _ids, ({0: Dim("batch", min=2, max=4), 1: _length(64)},) * 2, (5, 2, 3, 64)),
    "loop_lstm": Architecture(LoopLSTM, lambda n: (torch.randn(n, 2, 6),), ({0: _length(32)},), (5, 2, 9, 32)),
    "recurrent": Architecture(RecurrentTagger, lambda n: (torch.randn(2, n, 6),), ({1: _length(32)},), (5, 2, 32)),
    "unet": Architecture(UNet, lambda n: (torch.randn(n, 1, 8, 8),), ({0: _batch()},), (3, 2)),
    "upsampler": Architecture(Upsampler, lambda n: (torch.randn(n, 4, 5, 5),), ({0: _batch()},), (3, 2)),
    "gated_cell": Architecture(
        GatedCell, lambda n: (torch.randn(n, 6), torch.randn(n, 7)), ({0: _batch()},) * 2, (3, 2, 8)
    ),
    "detector": Architecture(Detector, _detector_inputs, ({0: Dim("anchors", min=2, max=40)}, None), (10, 3, 12)),
    "attention": Architecture(AttentionBlock, lambda n: (torch.randn(2, n, 16),), ({1: _length(32)},), (6, 2, 32)),
    "branching": Architecture(Branching, lambda n: (torch.randn(n, 6),), ({0: _batch()},), (6, 3)),
}


def build(name: str) -> nn.Module:
    """The module in evaluation mode, its weights and normalisation statistics drawn from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[name].build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def example(name: str, size: int | None = None) -> tuple[Any, ...]:
    """Arguments from a fixed seed; by default at the size to capture at."""
    architecture = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return architecture.inputs(architecture.sizes[0] if size is None else size)


@functools.cache
def captured(name: str) -> Graph:
    """The graph of an architecture, captured once a process for all rooms."""
    return capture(build(name), example(name), dynamic_shapes=ARCHITECTURES[name].dynamic_shapes)
