"""Numbers that lie on a format's grid already, so that encoding them again changes no bit."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from taut.numerics._choice import SMALLEST_ROW, Choice, Chooser, Problem, element_codes, integer_dtype
from taut.numerics._format import Format

_SAMPLE = 64  # numbers a row that rule most rows out
_TOLERANCE = 2.0**-21.5  # of the largest magnitude: a few roundings to float32
_STEPS = 48
_MULTIPLES = 128
_STORED = ("scales", "gammas", "zero_points", "codes")


def keep_exact(choose: Chooser) -> Chooser:
    """The chooser for rows that are not on the grid, while those on it keep their numbers bit for bit."""

    def choose_rest(problem: Problem) -> Choice:
        found, exact = find_exact(problem)
        if not bool(found.any()):
            return choose(problem)
        if bool(found.all()):
            return exact
        rest = Problem(problem.blocks[~found], problem.format, problem.weights)
        chosen = choose(rest)
        chosen = dataclasses.replace(chosen, codes=element_codes(rest, chosen), divisors=None, factors=None)
        return Choice(**{name: _interleave(found, getattr(exact, name), getattr(chosen, name)) for name in _STORED})

    return choose_rest


def _interleave(found: Tensor, exact: Tensor | None, chosen: Tensor | None) -> Tensor | None:
    if exact is None or chosen is None:
        return None
    merged = chosen.new_empty(found.shape[0], *chosen.shape[1:])
    merged[found], merged[~found] = exact, chosen
    return merged


def find_exact(problem: Problem) -> tuple[Tensor, Choice]:
    """Scales and codes that reproduce rows bit for bit, where there are any.

    A row on the grid holds integer multiples of its coarse scale. Their greatest common divisor is found with continued
    fractions of the rounded numbers, then the float32 next to it that gives back every number. Certain to succeed where
    the largest multiple is below about 1,500.

    Returns:
        `(rows,)` bool, which rows lie on the grid (all or none where they share a scale), and the choice for these rows
        only.
    """
    number_format, blocks = problem.format, problem.blocks
    rows, vectors, width = blocks.shape
    scales = number_format.scales
    if scales is not None and scales.kind != "integer":  # each vector on its own
        units = _exact_units(blocks.reshape(rows * vectors, width), number_format).view(rows, vectors, 1)
        found = ((units > 0) | (problem.amax() == 0)).flatten(1).all(1)
        units = units[found]
        stored = units.half() if scales.kind == "float16" else units
        return found, Choice(stored, None, codes=_multiples(blocks[found], units).to(torch.int8))
    shared = number_format.is_shared
    units = _exact_units(blocks.reshape(1, -1) if shared else blocks.flatten(1), number_format)
    units = units.view(-1, 1, 1)
    found = (units > 0).flatten().expand(rows)
    multiples = _multiples(blocks[found], units if shared else units[found])
    if scales is not None:
        stored, codes, fits = _factor(multiples, int(number_format.elements.highest), 2**scales.bits - 1)
        fits = fits.all().expand(fits.shape) if shared else fits
        found = found.masked_scatter(found, fits)
        choice_units = units if shared else units[found]
        integer = stored[fits].to(integer_dtype(scales.bits))
        return found, Choice(integer, choice_units, codes=codes[fits].to(torch.int8))
    if number_format.offset == "zero_point":
        over = (0, 1, 2) if shared else (1, 2)
        zeros = -multiples.amin(over, keepdim=True).clamp_(max=0) if multiples.numel() else units[:0]
        codes, zeros = (multiples + zeros).to(torch.uint8), zeros.to(torch.uint8)
        return found, Choice(None, units if shared else units[found], zero_points=zeros, codes=codes)
    return found, Choice(None, units if shared else units[found], codes=multiples.to(torch.int8))


def _levels(number_format: Format) -> int:
    """The largest multiple of the unit, or for an asymmetric format the distance of the extremes."""
    scales = number_format.scales
    highest = 2**scales.bits - 1 if scales is not None and scales.kind == "integer" else 1
    return int(number_format.elements.highest) * highest


def _multiples(x: Tensor, units: Tensor) -> Tensor:
    return (x / units.masked_fill(units == 0, torch.inf)).round_()


def _factor(multiples: Tensor, highest: int, highest_scale: int) -> tuple[Tensor, Tensor, Tensor]:
    """Integers `(rows, vectors, elements)` as scale times element; third, `(rows,)`, where that is possible."""
    largest = multiples.abs().amax(2, keepdim=True) if multiples.numel() else multiples[..., :1]
    scales = torch.zeros_like(largest)
    for top in range(highest, 0, -1):
        candidate = (largest / top).round_()
        fits = (candidate * top == largest) & (candidate > 0) & (candidate <= highest_scale) & (scales == 0)
        if bool(fits.any()):
            divisor = torch.where(fits, candidate, 1.0)
            fits &= (multiples.remainder(divisor) == 0).all(2, keepdim=True)
            scales = torch.where(fits, candidate, scales)
    possible = ((scales > 0) | (largest == 0)).flatten(1).all(1)
    return scales, multiples / scales.clamp(min=1.0), possible


def _exact_units(x: Tensor, number_format: Format) -> Tensor:
    """The float32 of which all numbers of a row are integer multiples, rounded once; 0 where there is none.

    Args:
        x: `(rows, count)` float32.
        number_format: says how many multiples of the unit there are.
    """
    levels = _levels(number_format)
    half = number_format.scales is not None and number_format.scales.kind == "float16"
    units = x.new_zeros(x.shape[0])
    if not x.numel():
        return units
    low, high = x.amin(1), x.amax(1)
    amax = torch.maximum(high, -low)
    candidates = (amax >= SMALLEST_ROW).nonzero().flatten()
    for columns in (_SAMPLE, x.shape[1]):
        sample = x[candidates, :columns]
        top = amax[candidates].double()
        divisor = _common_divisors(sample.double(), top, levels)
        candidates, divisor = candidates[divisor > 0], divisor[divisor > 0]
    reach = amax if number_format.offset == "none" else high.clamp(min=0.0) - low.clamp(max=0.0)
    for multiple in range(1, _MULTIPLES):
        possible = (units[candidates] == 0) & (multiple * reach[candidates].double() <= (levels + 0.5) * divisor)
        candidates, divisor = candidates[possible], divisor[possible]
        if not candidates.numel():
            break
        numbers, top = x[candidates], amax[candidates]
        steps = (top.double() / divisor).round_() * multiple
        nearest = (top.double() / steps).float()
        for unit in (nearest, torch.nextafter(nearest, top), torch.nextafter(nearest, torch.zeros_like(top))):
            exact = ((numbers / unit.unsqueeze(1)).round_().mul_(unit.unsqueeze(1)) == numbers).all(1)
            exact &= units[candidates] == 0
            if half:
                exact &= unit.half().float() == unit
            units[candidates[exact]] = unit[exact]
    return units


def _common_divisors(x: Tensor, top: Tensor, levels: int) -> Tensor:
    """The greatest number of which those of each row are multiples within the tolerance; 0 where it is too small.

    The number farthest from a multiple is folded in until there is none.

    Args:
        x: `(rows, count)` float64.
        top: `(rows,)` the largest magnitudes of the whole rows.
        levels: the largest multiple that counts.
    """
    parts = torch.ones_like(top)  # top / parts is the divisor so far
    open_rows = torch.arange(len(top), device=x.device)
    for _ in range(_STEPS):
        numbers, largest = x[open_rows], top[open_rows]
        unit = largest / parts[open_rows]
        distance, place = (numbers - (numbers / unit[:, None]).round_().mul_(unit[:, None])).abs_().max(1)
        off = distance > largest * _TOLERANCE
        open_rows = open_rows[off]
        if not open_rows.numel():
            break
        ratio = numbers[off].gather(1, place[off].unsqueeze(1)).squeeze(1).abs() / unit[off]
        parts[open_rows] *= _denominators(ratio, _TOLERANCE * parts[open_rows])
        open_rows = open_rows[parts[open_rows] <= levels]
    return torch.where(parts <= levels, top / parts, 0.0)


def _denominators(ratio: Tensor, tolerance: Tensor) -> Tensor:
    """The denominator of the first convergent of each ratio's continued fraction within the tolerance."""
    denominator, before, rest = torch.ones_like(ratio), torch.zeros_like(ratio), ratio - ratio.round()
    for _ in range(_STEPS):
        scaled = ratio * denominator
        off = (scaled - scaled.round()).abs() > tolerance * denominator
        if not bool(off.any()):
            break
        inverse = torch.where(off, rest, 1.0).reciprocal()
        quotient = inverse.round()
        following = (quotient * denominator + before).abs()
        sign = torch.sign(quotient * denominator + before)
        before, denominator = torch.where(off, denominator * sign, before), torch.where(off, following, denominator)
        rest = torch.where(off, inverse - quotient, rest)
    return denominator
