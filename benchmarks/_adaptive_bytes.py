"""The bytes of `adaptive_training` by formula: from shapes, levels and steps alone, with nothing run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from taut.distributed import Compressor, Message

WHOLE_STEPS = 1000  # of torch's PowerSGD, before it compresses
LEAST_GAIN = 2  # of torch's PowerSGD; a matrix that gets smaller by less is sent whole


def scheduled_bytes(
    schedule: Iterable[Mapping[str, int]],
    shapes: Mapping[str, torch.Size],
    compressors: Sequence[Compressor],
    steps: int,
    ranks: int,
) -> list[float]:
    """Bytes that a rank sends in each epoch.

    Args:
        schedule: the level of each parameter at each epoch.
        shapes: of the parameters.
        compressors: of the levels.
        steps: of an epoch.
        ranks: that exchange.
    """
    found = []
    for levels in schedule:
        sent = 0.0
        for level, compressor in enumerate(compressors):
            chosen = [shape for name, shape in shapes.items() if levels[name] == level]
            if chosen:
                sent += compressor.traffic(chosen, ranks).sent(ranks)
        found.append(steps * sent)
    return found


def torchs_bytes(shapes: Iterable[torch.Size], epochs: int, steps: int, ranks: int) -> list[float]:
    """Bytes that a rank sends in each epoch with torch's PowerSGD at its defaults: rank 1 after 1000 whole steps."""
    whole = compressed = 0
    for shape in shapes:
        factors = shape[0] + shape[1:].numel()
        whole += shape.numel()
        compressed += factors if LEAST_GAIN * factors < shape.numel() else shape.numel()
    found = []
    for epoch in range(epochs):
        first = min(max(WHOLE_STEPS - epoch * steps, 0), steps)
        elements = first * whole + (steps - first) * compressed
        found.append(Message("all_reduce", 4 * elements).sent(ranks))
    return found
