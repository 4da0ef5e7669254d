"""ResNet-56 for CIFAR-10: the network of `resnet20.py` with nine blocks a stage.

    taut optimize examples/resnet56.py:model --data examples/resnet56.py:data --metric accuracy

RESNET56_WEIGHTS names the checkpoint; the images are those of `resnet20.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn

from taut.errors import ModelLoadError

sys.path.insert(0, str(Path(__file__).parent))  # the examples are files, not a package
from resnet20 import Block, ResNet20, data

__all__ = ["METRIC", "ResNet56", "data", "model"]

METRIC = "accuracy"

_WEIGHTS = Path(__file__).parents[2] / "shared" / "data" / "resnet-cifar" / "resnet56.th"


class ResNet56(ResNet20):
    """Normalised images (N, 3, 32, 32) to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        for name, before, width in (("layer1", 16, 16), ("layer2", 16, 32), ("layer3", 32, 64)):
            setattr(self, name, nn.Sequential(Block(before, width), *(Block(width, width) for _ in range(8))))


def model() -> nn.Module:
    """The network with the weights of the checkpoint, in evaluation mode."""
    path = Path(os.environ.get("RESNET56_WEIGHTS", _WEIGHTS))
    if not path.is_file():
        raise ModelLoadError(f"no checkpoint at {path}", fix="set RESNET56_WEIGHTS to the file that holds the weights")
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    network = ResNet56()
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return network.eval().requires_grad_(False)
