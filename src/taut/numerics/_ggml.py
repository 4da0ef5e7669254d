"""Q4_0 and Q4_K in the block layouts of ggml, with ggml's own choice of scales."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.numerics._choice import Choice, Problem, nonzero, quotient, reciprocal

_VECTORS = 8  # vectors of 32 in a block of Q4_K
_STEPS = 21


def choose_q4_0(problem: Problem) -> Choice:
    """The signed value of largest magnitude becomes the element -8; elements round half up against the exact scale."""
    blocks = problem.blocks
    place = blocks.abs().argmax(dim=2, keepdim=True)
    scales = blocks.gather(2, place) / -8
    codes = (blocks * reciprocal(scales)).add_(8.5).clamp_(0, 15).to(torch.uint8)  # cutting off rounds down above zero
    return Choice(scales.to(torch.float16), None, codes=codes.view(torch.int8) - 8)


def search_q4_0(problem: Problem) -> Choice:
    """The float16 scale of least squared error about the one that the largest magnitude gives."""
    place = problem.blocks.abs().argmax(dim=2, keepdim=True)
    start = problem.blocks.gather(2, place) / -8
    best, least = torch.zeros_like(start), torch.full_like(start, torch.inf)
    for ratio in torch.linspace(0.75, 1.25, 26).tolist():
        candidate = (start * ratio).to(torch.float16).float()
        error = problem.error(candidate, (2,))
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, candidate, best)
    return Choice(best.to(torch.float16), None, divisors=best)


def choose_q4_k(problem: Problem) -> Choice:
    """Scale and minimum of each vector by weighted least squares, rounded to 6 bits under float16 coarse ones.

    The steps and the order of the float32 sums are those of ggml's reference quantiser.
    """
    rows, groups, _ = problem.blocks.shape
    scales, minima, fitted = _fit_lines(problem.blocks)
    scale_codes, gammas = _six_bits(scales.view(rows, groups // _VECTORS, _VECTORS))
    minimum_codes, minimum_gammas = _six_bits(minima.view(rows, groups // _VECTORS, _VECTORS))
    divisors = (gammas.float() * scale_codes).view(rows, groups, 1)
    offsets = (minimum_gammas.float() * minimum_codes).view(rows, groups, 1)
    codes = ((problem.blocks + offsets) / nonzero(divisors)).round_().clamp_(0, 15)
    # Where the scale came out as 0 the codes mean nothing; ggml leaves those of the fit.
    codes = torch.where(divisors == 0, fitted, codes).to(torch.uint8)
    scale_codes, minimum_codes = scale_codes.view(rows, groups, 1), minimum_codes.view(rows, groups, 1)
    return Choice(scale_codes, gammas, minima=minimum_codes, minimum_gammas=minimum_gammas, codes=codes)


def _six_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values `(rows, blocks, 8)`, not negative, as 6-bit codes under a float16 coarse scale `(rows, blocks, 1)`."""
    top = values.amax(2, keepdim=True) if values.numel() else values[..., :1]
    codes = (values * quotient(63, nonzero(top))).round_().clamp_(0, 63).to(torch.uint8)
    return codes, (top / 63).to(torch.float16)


def _fit_lines(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and minimum (not negative) with which `code * scale - minimum` fits each vector best, and its codes.

    A step takes its codes with the minimum of the best fit so far.
    """
    x = [blocks[..., place] for place in range(blocks.shape[2])]  # 32 of (rows, vectors)
    # In float64: torch's float32 square root is not always the nearest number.
    average = (_sum([value * value for value in x]).double() / len(x)).sqrt().float()
    weights = [average + value.abs() for value in x]
    low, high = blocks.amin(2).clamp_(max=0.0), blocks.amax(2)
    level = low == high
    sum_w, sum_x = _sum(weights), _sum([w * value for w, value in zip(weights, x, strict=True)])
    inverse = quotient(15, (high - low).masked_fill_(level, torch.inf))
    scale, minimum = inverse.reciprocal(), low
    codes = _codes(x, inverse, low)
    least = _line_error(x, weights, codes, scale, minimum)
    settled = (inverse, low)
    for step in range(_STEPS):
        inverse = (-1.0 + torch.tensor(0.1) * step + 15) / (high - minimum)
        codes = _codes(x, inverse, minimum)
        sum_l = _sum([w * code for w, code in zip(weights, codes, strict=True)])
        sum_l2 = _sum([w * code * code for w, code in zip(weights, codes, strict=True)])
        sum_xl = _sum([w * code * value for w, code, value in zip(weights, codes, x, strict=True)])
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = new_minimum > 0
        new_scale = torch.where(above, sum_xl / sum_l2, new_scale)
        new_minimum = new_minimum.masked_fill(above, 0.0)
        error = _line_error(x, weights, codes, new_scale, new_minimum)
        better = (determinant > 0) & (error < least) & ~level
        settled = (torch.where(better, inverse, settled[0]), torch.where(better, minimum, settled[1]))
        least = torch.where(better, error, least)
        scale = torch.where(better, new_scale, scale)
        minimum = torch.where(better, new_minimum, minimum)
    fitted = torch.stack(_codes(x, *settled), dim=2)
    return scale.masked_fill(level, 0.0), 0.0 - minimum, fitted


def _sum(terms: list[Tensor]) -> Tensor:
    """The sum from first to last, in this order."""
    total = terms[0].clone()
    for term in terms[1:]:
        total.add_(term)
    return total


def _codes(x: list[Tensor], inverse: Tensor, low: Tensor) -> list[Tensor]:
    return [((value - low) * inverse).round_().clamp_(0, 15) for value in x]


def _line_error(x: list[Tensor], weights: list[Tensor], codes: list[Tensor], scale: Tensor, minimum: Tensor) -> Tensor:
    differences = (scale * code + minimum - value for code, value in zip(codes, x, strict=True))
    return _sum([w * (difference * difference) for w, difference in zip(weights, differences, strict=True)])


def q4_0_bytes(codes: Tensor, scales: Tensor) -> Tensor:
    """Blocks of 18 bytes: the float16 scale, then element i in the low and i + 16 in the high half of byte i.

    Args:
        codes: `(rows, blocks * 32)` int8 in -8..7.
        scales: `(rows, blocks)` float16.

    Returns:
        `(rows, blocks * 18)` uint8.
    """
    stored = (codes + 8).view(torch.uint8).view(*scales.shape, 2, 16)
    nibbles = stored[:, :, 0] | (stored[:, :, 1] << 4)
    return torch.cat([_bytes(scales), nibbles], dim=2).flatten(1)


def q4_0_parts(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `q4_0_bytes`, from `(rows, blocks, 18)`."""
    nibbles = blocks[..., 2:]
    codes = torch.cat([nibbles & 15, nibbles >> 4], dim=2).view(torch.int8) - 8
    return codes.flatten(1), _halves(blocks[..., :2])


def q4_k_bytes(codes: Tensor, scales: Tensor, minima: Tensor, gammas: Tensor, minimum_gammas: Tensor) -> Tensor:
    """Blocks of 144 bytes: both float16 coarse scales, 12 bytes of 6-bit scales and minima, 128 of elements.

    Args:
        codes: `(rows, blocks * 256)` uint8 in 0..15.
        scales: `(rows, blocks * 8)` uint8 in 0..63.
        minima: as `scales`.
        gammas: `(rows, blocks)` float16.
        minimum_gammas: as `gammas`.

    Returns:
        `(rows, blocks * 144)` uint8.
    """
    s, m = (x.view(*gammas.shape, 2, 4) for x in (scales, minima))
    # The last four of each lie in the top bits of the first four and in bytes shared half by half.
    sixes = [
        s[:, :, 0] | ((s[:, :, 1] >> 4) << 6),
        m[:, :, 0] | ((m[:, :, 1] >> 4) << 6),
        (s[:, :, 1] & 15) | ((m[:, :, 1] & 15) << 4),
    ]
    pairs = codes.view(*gammas.shape, 4, 2, 32)  # two vectors share the halves of 32 bytes
    nibbles = (pairs[:, :, :, 0] | (pairs[:, :, :, 1] << 4)).flatten(2)
    return torch.cat([_bytes(gammas), _bytes(minimum_gammas), *sixes, nibbles], dim=2).flatten(1)


def q4_k_parts(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The inverse of `q4_k_bytes`, from `(rows, blocks, 144)`."""
    s, m, shared = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = torch.cat([s & 63, (shared & 15) | ((s >> 6) << 4)], dim=2)
    minima = torch.cat([m & 63, (shared >> 4) | ((m >> 6) << 4)], dim=2)
    nibbles = blocks[..., 16:].unflatten(2, (4, 32))
    codes = torch.stack([nibbles & 15, nibbles >> 4], dim=3)
    return codes.flatten(1), scales.flatten(1), minima.flatten(1), _halves(blocks[..., :2]), _halves(blocks[..., 2:4])


def _bytes(halves: Tensor) -> Tensor:
    return halves.contiguous().unsqueeze(2).view(torch.uint8)


def _halves(pairs: Tensor) -> Tensor:
    return pairs.contiguous().view(torch.float16).squeeze(2)
