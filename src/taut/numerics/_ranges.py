"""Choosing a real-valued scale: from the largest magnitude, a percentile, the entropy, or the squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.numerics._choice import SMALLEST_ROW, Choice, Problem, largest, quotient
from taut.numerics._elements import FloatElements, IntegerElements
from taut.numerics._entropy import entropy_range
from taut.numerics._last_bit import settle_last_bit

_COARSE_RATIOS = torch.linspace(0.2, 1.1, 31).tolist()
_FINE_RATIOS = torch.linspace(-0.025, 0.025, 11).tolist()


def choose_max(problem: Problem) -> Choice:
    """The largest magnitude of each vector becomes the largest element."""
    amax = _amax(problem)
    if problem.format.scales is not None or problem.format.offset == "zero_point":
        return _from_range(problem, amax, 1.0)
    # The order of roundings of the int8 kernel: values times (127 / amax), scale amax / 127.
    highest = problem.format.elements.highest
    factors = quotient(highest, amax).masked_fill_(amax < SMALLEST_ROW, 0.0)
    gammas = _clear_small(amax, amax) / highest
    if isinstance(problem.format.elements, FloatElements):
        return settle_last_bit(problem, gammas, lambda settled: Choice(None, settled, factors=factors))
    return Choice(None, gammas, factors=factors)


def choose_percentile(problem: Problem, percentile: float = 99.9) -> Choice:
    """A percentile of the magnitudes becomes the largest element; larger ones saturate."""
    magnitudes = problem.blocks.abs().flatten() if 0 in problem.shared else problem.blocks.abs().flatten(1)
    count = magnitudes.shape[-1]
    place = max(1, min(count, round(count * percentile / 100)))
    chosen = torch.kthvalue(magnitudes, place, dim=-1).values.view(-1, 1, 1)
    amax = _amax(problem)
    chosen = torch.where(chosen > 0, chosen, amax)  # more than the percentile of zeros
    return _from_range(problem, amax, chosen / amax.masked_fill(amax == 0, 1.0))


def choose_entropy(problem: Problem) -> Choice:
    """The range of least Kullback-Leibler divergence between the histograms before and after."""
    amax = _amax(problem)
    rows = problem.blocks.flatten().unsqueeze(0) if 0 in problem.shared else problem.blocks.flatten(1)
    levels = int(problem.format.elements.highest) + 1
    return _from_range(problem, amax, entropy_range(rows, amax.flatten(), levels).view(-1, 1, 1))


def choose_mse(problem: Problem) -> Choice:
    """The range of least squared error, on a grid of ratios to the largest magnitude, refined about the best."""
    amax = _amax(problem)
    over = _over(problem)
    best_ratio, best_error = torch.ones_like(amax), _error(problem, amax, torch.ones_like(amax), over)
    for ratios in (_COARSE_RATIOS, _FINE_RATIOS):
        center = best_ratio.clone() if ratios is _FINE_RATIOS else torch.zeros_like(best_ratio)
        for ratio in ratios:
            candidate = center + ratio
            error = _error(problem, amax, candidate, over)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_ratio = torch.where(better, candidate, best_ratio)
    return _from_range(problem, amax, best_ratio)


def _over(problem: Problem) -> tuple[int, ...]:
    return problem.shared if problem.format.scales is None else (2,)


def _amax(problem: Problem) -> Tensor:
    return largest(problem.blocks, _over(problem))


def _clear_small(amax: Tensor, scales: Tensor) -> Tensor:
    return scales.masked_fill(amax < SMALLEST_ROW, 0.0)


def _from_range(problem: Problem, amax: Tensor, ratio: Tensor | float) -> Choice:
    """Scales that make `ratio` times the range the largest element."""
    number_format = problem.format
    if number_format.offset == "zero_point":
        return _asymmetric(problem, ratio)
    scales = _clear_small(amax, amax * ratio / number_format.elements.highest)
    if number_format.scales is None:
        return Choice(None, scales, divisors=scales)
    stored = scales.to(torch.float16) if number_format.scales.kind == "float16" else scales
    return Choice(stored, None, divisors=stored.float())


def _asymmetric(problem: Problem, ratio: Tensor | float) -> Choice:
    """Scale and zero point of a range that holds zero, so that zero is exact."""
    elements = problem.format.elements
    over = problem.shared
    if not problem.blocks.numel():
        zeros = largest(problem.blocks, over)
        return Choice(None, zeros, divisors=zeros, zero_points=zeros.to(torch.uint8))
    low = problem.blocks.amin(over, keepdim=True).clamp_(max=0.0) * ratio
    high = problem.blocks.amax(over, keepdim=True).clamp_(min=0.0) * ratio
    scales = _clear_small(torch.maximum(high, -low), high / elements.highest - low / elements.highest)
    zero_points = (-low / scales.masked_fill(scales == 0, 1.0)).round_().clamp_(0, elements.highest)
    return Choice(None, scales, divisors=scales, zero_points=zero_points.to(torch.uint8))


def _error(problem: Problem, amax: Tensor, ratio: Tensor, over: tuple[int, ...]) -> Tensor:
    choice = _from_range(problem, amax, ratio)
    assert choice.divisors is not None
    if choice.zero_points is None:
        return problem.error(choice.divisors, over)
    elements = problem.format.elements
    assert isinstance(elements, IntegerElements)
    zero_points = choice.zero_points.float()
    codes = problem.blocks / choice.divisors.masked_fill(choice.divisors == 0, torch.inf)
    codes = codes.round_().add_(zero_points).clamp_(elements.low, elements.high)
    difference = codes.sub_(zero_points).mul_(choice.divisors).sub_(problem.blocks)
    if problem.unit is not None:
        difference.mul_(problem.unit)
    difference.square_()
    if problem.weights is not None:
        difference.mul_(problem.weights)
    return difference.sum(over, keepdim=True)
