"""ResNet-20 for CIFAR-10 (He et al., Deep Residual Learning for Image Recognition, section 4.2; option A shortcuts).

    taut optimize examples/resnet20.py:model --data examples/resnet20.py:data --metric accuracy

RESNET20_WEIGHTS names the checkpoint (a state dict, perhaps from DataParallel), CIFAR10_ARCHIVE a tar of test images
`test/<class>/<number>.jpg`; CIFAR10_IMAGES says how many of the 10,000 to take, chosen at random from a fixed seed.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from taut.errors import ArgumentError, DataError, MissingExtraError, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

METRIC = "accuracy"

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SHARED = Path(__file__).parents[2] / "shared" / "data"


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters: every second pixel, zeros for the added channels."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = 1 if channels_in == channels_out else 2
        self.padding = (channels_out - channels_in) // 2
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + x)


class ResNet20(nn.Module):
    """Normalised images (N, 3, 32, 32) to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, 64, 8, 8)
        return self.linear(x.mean((2, 3)))


def model() -> nn.Module:
    """The network with the weights of the checkpoint, in evaluation mode."""
    path = Path(os.environ.get("RESNET20_WEIGHTS", _SHARED / "resnet-cifar" / "resnet20.th"))
    if not path.is_file():
        raise ModelLoadError(f"no checkpoint at {path}", fix="set RESNET20_WEIGHTS to the file that holds the weights")
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    network = ResNet20()
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return network.eval().requires_grad_(False)


def data() -> dict[str, tuple[Tensor] | Tensor]:
    """Test images (N, 3, 32, 32), normalised as in training (ImageNet's mean and deviation), and classes (N,)."""
    count = os.environ.get("CIFAR10_IMAGES", "2000")
    if not count.isdecimal() or not 0 < int(count) <= 10_000:
        raise ArgumentError("CIFAR10_IMAGES", count, expected="a whole number from 1 to 10000")
    named = list(_test_images())
    if not named:
        raise DataError("the archive of images holds no member test/<class>/<number>.jpg")
    chosen = random.Random(0).sample(named, min(int(count), len(named)))
    pixels = torch.stack([_decode(content) for _, content in chosen])
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    labels = torch.tensor([CLASSES.index(PurePosixPath(name).parent.name) for name, _ in chosen])
    return {"inputs": ((pixels - mean) / deviation,), "labels": labels}


def _test_images() -> Iterator[tuple[str, bytes]]:
    path = Path(os.environ.get("CIFAR10_ARCHIVE", _SHARED / "cifar10-jpeg.tar.gz"))
    if not path.is_file():
        raise DataError(f"no archive of images at {path}", fix="set CIFAR10_ARCHIVE to the tar file that holds them")
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.startswith("test/") and (content := archive.extractfile(member)):
                yield member.name, content.read()


def _decode(content: bytes) -> Tensor:
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", extra="bench", needed_for="the ResNet-20 example") from error
    pixels = np.array(Image.open(io.BytesIO(content)).convert("RGB"))  # (32, 32, 3) uint8
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
