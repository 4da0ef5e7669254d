"""The window through which an output of a convolution or a pooling sees the inputs."""

from __future__ import annotations

import dataclasses

from taut.codegen._recipe import Recipe
from taut.errors import ArgumentError

Sizes = tuple[int, int]
Sides = tuple[int, int, int, int]

CHANNEL_BLOCKS = (32, 16, 48, 64, 80, 128)
"""How many output channels may have their weights lie together."""
_SCRATCH = 192 * 1024  # bytes of a strip: with a block of weights it stays in the second-level cache


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """How outputs look at inputs, per axis (vertical, horizontal).

    Attributes:
        kernel: taps.
        stride: inputs from one output to the next.
        padding: zeros above, below, left and right.
        dilation: inputs from one tap to the next.
    """

    kernel: Sizes
    stride: Sizes = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: Sizes = (1, 1)

    def output(self, axis: int, size: int | None) -> int | None:
        """The outputs along an axis (0 vertical, 1 horizontal) of `size` inputs; None where that is not known."""
        if size is None:
            return None
        free = size + sum(self.padding[2 * axis : 2 * axis + 2]) - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        return max(free // self.stride[axis] + 1, 0)

    def reach(self, axis: int, outputs: int) -> int:
        """The inputs that so many neighbouring outputs see."""
        return (outputs - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def parameters(self) -> dict[str, int]:
        """As parameters of a recipe."""
        names = ("kernel", "stride", "padding", "dilation")
        return {f"{name}{number}": size for name in names for number, size in enumerate(getattr(self, name))}

    @classmethod
    def of(cls, recipe: Recipe) -> Window:
        """The window that `parameters` wrote."""
        get = recipe.parameters
        return cls(
            (int(get["kernel0"]), int(get["kernel1"])),
            (int(get["stride0"]), int(get["stride1"])),
            (int(get["padding0"]), int(get["padding1"]), int(get["padding2"]), int(get["padding3"])),
            (int(get["dilation0"]), int(get["dilation1"])),
        )

    def check(self) -> None:
        """Refuse what no window can be.

        Raises:
            ArgumentError: a size is out of range.
        """
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise ArgumentError("window", self, expected="kernel, stride and dilation from 1, padding from 0")


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """Outputs that are computed side by side, and the strip of tiles whose inputs are staged at once.

    Attributes:
        width, height: pixels of a tile.
        columns, rows: tiles of a strip.
    """

    width: int
    height: int
    columns: int
    rows: int


def strips(
    window: Window, channels: int, output: tuple[int | None, ...], width: int, height: int, scratch: int = _SCRATCH
) -> Tile:
    """Tiles of a size with the largest strip whose inputs fit in so many bytes.

    Args:
        window: how outputs look at inputs.
        channels: that are staged together.
        output: [N, OH, OW, O], None where a size is not known.
        width: of a tile.
        height: of a tile.
        scratch: bytes.
    """
    across, down = (size and -(-size // step) for size, step in ((output[2], width), (output[1], height)))
    pixels = scratch // (window.reach(0, height) * channels * 4)
    fitting = max(1, (pixels - window.reach(1, 1)) // (window.stride[1] * width))
    columns = _even(across, fitting if across else min(fitting, max(1, 64 // width)))
    line = window.reach(1, columns * width) * channels * 4
    fitting = max(1, (scratch // line - window.reach(0, 1)) // (window.stride[0] * height))
    return Tile(width, height, columns, _even(down, fitting if down else min(fitting, max(1, 16 // height))))


def _even(count: int | None, most: int) -> int:
    """Steps of a strip, `most` at the most, so that strips of `count` steps in all are about equal."""
    return -(-count // -(-count // most)) if count else most
