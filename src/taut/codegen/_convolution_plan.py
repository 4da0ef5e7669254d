"""The analytic rule behind a convolution: its block of output channels, its tile, its strip."""

from __future__ import annotations

import dataclasses
import math

from taut.codegen._convolution_window import CHANNEL_BLOCKS, Tile, Window, strips

_WEIGHTS = 768 * 1024  # bytes of one block of weights that the second-level cache still holds
_USUAL = (7, 8, 14, 16, 28, 32, 56, 64)  # stand for an extent that is not known
_LOADS = 1.85  # vectors that a core loads in the time of two multiply-adds, as measured
_TILE_START = 20  # cycles that a tile costs beside its sums


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a convolution runs.

    Attributes:
        tile: outputs whose sums stay in registers, for a block of channels.
        share: whether the taps of a column are summed together, so that a loaded input serves several rows.
    """

    tile: Tile
    share: bool


def plan(window: Window, depth: int, output: tuple[int | None, ...], vectors: int, registers: int) -> Plan:
    """The fastest tile by the rule.

    Args:
        window: of the convolution.
        depth: input channels.
        output: [N, OH, OW, O], None where a size is not known.
        vectors: of a block of output channels.
        registers: vector registers of the host.
    """
    _, width, height, share = _fastest(window, depth, output, vectors, registers)
    return Plan(strips(window, depth, output, width, height), share)


def choose_block(window: Window, depth: int, output: tuple[int | None, ...]) -> int:
    """The output channels whose weights lie together; the same on every host, as weights are packed once."""
    channels = output[3] or 1

    def cost(block: int) -> float:
        padded = -(-channels // block) * block
        far = block * depth * math.prod(window.kernel) * 4 > _WEIGHTS
        return _fastest(window, depth, output, block // 16, 32)[0] * padded * (1.1 if far else 1.0)

    return min((block for block in CHANNEL_BLOCKS if block == 16 or block < channels + 16), key=cost)


def _fastest(
    window: Window, depth: int, output: tuple[int | None, ...], vectors: int, registers: int
) -> tuple[float, int, int, bool]:
    """Cycles a multiply-add, width, height and sharing of the best tile."""
    taps = window.kernel[0]
    sums = depth * math.prod(window.kernel)
    sharing = vectors == 1 and 1 < taps <= 5 and window.stride[0] == window.dilation[0] == 1
    best = (math.inf, 1, 1, False)
    for height in range(1, 9):
        share = sharing and height > 1
        steps = taps if share else 1
        # Beside the sums: weights and an input, or with sharing the weights and inputs of a column.
        limit = registers - (2 * taps + 2 if share else max(vectors + 2, 4))
        for width in range(max(limit // (vectors * height), height == 1), 0, -1):
            totals = vectors * width * height
            loads = width * (height + taps - 1) + taps * vectors if share else width * height + vectors
            far = 3 * steps * vectors  # weights come from the second-level cache
            cycles = max(totals * steps / 2, loads / _LOADS, 4 * steps) + (loads + far) / 20
            waste = _waste(output[1], height) * _waste(output[2], width)
            cost = waste * (cycles * sums / steps + _TILE_START) / (totals * sums)
            best = min(best, (cost, width, height, share), key=lambda found: found[0])
    return best


def _waste(size: int | None, step: int) -> float:
    """What is computed along an axis for what is asked."""
    sizes = _USUAL if size is None else (max(size, 1),)
    return sum(-(-size // step) * step / size for size in sizes) / len(sizes)
