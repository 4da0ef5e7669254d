"""Rounding by chance to a few bits, in blocks: the native kernel's code, and the same format by torch elsewhere."""

from __future__ import annotations

import torch

import taut.kernels as kernels
from taut.kernels import QUANTISE_BLOCK


def quantise(values: torch.Tensor, bits: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to multiples of each block's step, up or down by chance.

    Args:
        values: (elements,) float32.
        bits: 2, 4 or 8.
        seed: of the random numbers.

    Returns:
        Codes, (ceil(elements * bits / 8),) uint8, and steps, (ceil(elements / QUANTISE_BLOCK),) float32.
    """
    if values.device.type == "cpu":
        return kernels.quantise_stochastic(values, bits, seed)
    most = 2 ** (bits - 1) - 1
    blocks = torch.nn.functional.pad(values, (0, -values.numel() % QUANTISE_BLOCK)).view(-1, QUANTISE_BLOCK)
    steps = blocks.abs().amax(dim=1) / most if len(blocks) else values.new_empty(0)
    steps = steps.where(steps.isfinite(), torch.nan)
    random = torch.Generator(values.device).manual_seed(seed)
    noise = torch.rand(blocks.shape, generator=random, device=values.device)
    scaled = (blocks / steps[:, None].where(steps[:, None] > 0, 1)).nan_to_num(0)
    levels = (scaled + noise).floor().clamp(-most, most).view(-1)[: values.numel()]
    return _pack(levels.to(torch.int64) & (2**bits - 1), bits), steps


def add_quantised(dense: torch.Tensor, codes: torch.Tensor, steps: torch.Tensor, bits: int, scale: float) -> None:
    """Add `scale` times what was encoded to a float32 tensor, (elements,)."""
    if dense.device.type == "cpu":
        kernels.dequantise_add(dense, codes, steps, bits, scale)
        return
    places = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    fields = ((codes[:, None] >> places) & (2**bits - 1)).flatten()[: dense.numel()].to(torch.float32)
    levels = fields - (fields >= 2 ** (bits - 1)) * 2.0**bits
    dense += levels * steps.repeat_interleave(QUANTISE_BLOCK)[: dense.numel()] * scale


def _pack(fields: torch.Tensor, bits: int) -> torch.Tensor:
    in_byte = 8 // bits
    rows = torch.nn.functional.pad(fields, (0, -fields.numel() % in_byte)).view(-1, in_byte)
    return (rows << torch.arange(0, 8, bits, device=fields.device)).sum(dim=1).to(torch.uint8)
