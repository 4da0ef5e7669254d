"""Choosing integer scales under a coarse scale: the published order of roundings, and better ones."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.numerics._choice import SMALLEST_ROW, Choice, Problem, integer_dtype, largest, nonzero, quotient, reciprocal

_GAMMA_RATIOS = torch.linspace(0.62, 1.06, 23).tolist()
_REFITS = 3


def choose_round(problem: Problem) -> Choice:
    """The order of the paper: scale of the largest magnitude, rounded; elements against the unrounded scale.

    A vector much smaller than its neighbours gets scale 0 and is lost.
    """
    gammas, ideal = _real_scales(problem)
    stored = (ideal / nonzero(gammas)).round_().clamp_(0, _highest(problem))
    return Choice(_stored(problem, stored), gammas, divisors=ideal)


def choose_requantise(problem: Problem) -> Choice:
    """As `round`, but no scale below 1, and elements against the rounded scale."""
    gammas, ideal = _real_scales(problem)
    stored = (ideal / nonzero(gammas)).round_().clamp_(1, _highest(problem)).masked_fill_(ideal == 0, 0)
    return Choice(_stored(problem, stored), gammas, divisors=stored * gammas)


def choose_ceil(problem: Problem) -> Choice:
    """Scales rounded up, so that nothing saturates; elements against the rounded scale.

    Every operation in float32, rounded once.
    """
    stored, gammas, inverse = _round_up(problem)
    return Choice(_stored(problem, stored), gammas, factors=inverse * reciprocal(stored))


def choose_closest(problem: Problem) -> Choice:
    """Of the scale rounded up and the one below it (not 0), that of less squared error; of equal ones the larger.

    Exactly what the kernels do to activations at run time: a vector's error is in units of gamma,
    `(x * inverse - element * scale)**2` in float32, each operation rounded once, the squares padded with zeros to a
    power of two and summed by halving (i and i + half).
    """
    upper, gammas, inverse = _round_up(problem)
    lower = (upper - 1).clamp_(min=1).masked_fill_(upper == 0, 0)
    scaled = problem.blocks * inverse
    better = _halving_error(problem, scaled, inverse, lower) < _halving_error(problem, scaled, inverse, upper)
    stored = torch.where(better, lower, upper)
    return Choice(_stored(problem, stored), gammas, factors=inverse * reciprocal(stored))


def _round_up(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Scales rounded up, coarse scales, and what takes numbers to multiples of the coarse scales."""
    elements, highest = problem.format.elements, _highest(problem)
    levels = elements.highest * highest
    amax = largest(problem.blocks, problem.shared)
    small = amax < SMALLEST_ROW
    inverse = quotient(levels, amax).masked_fill_(small, 0.0)
    vector_amax = problem.amax()
    stored = (vector_amax * inverse).mul_(torch.tensor(1 / elements.highest)).ceil_().clamp_(1, highest)
    stored.masked_fill_((vector_amax == 0) | small, 0)
    return stored, (amax / levels).masked_fill_(small, 0.0), inverse


def _halving_error(problem: Problem, scaled: Tensor, inverse: Tensor, stored: Tensor) -> Tensor:
    values = problem.format.elements.round_(problem.blocks * (inverse * reciprocal(stored))).mul_(stored)
    squares = (scaled - values).square_()
    width = 1 << (squares.shape[2] - 1).bit_length() if squares.shape[2] else 1
    squares = torch.nn.functional.pad(squares, (0, width - squares.shape[2]))
    while width > 1:
        width //= 2
        squares = squares[..., :width] + squares[..., width:]
    return squares


def choose_search(problem: Problem) -> Choice:
    """Every integer scale tried for each vector, the one of least squared error kept (a selection above 15)."""
    gammas, _ = _real_scales(problem)
    stored, _ = search_scales(problem, gammas, thorough=True)
    return Choice(_stored(problem, stored), gammas, divisors=stored * gammas)


def choose_joint(problem: Problem) -> Choice:
    """`search` for a range of coarse scales, then the coarse scale refitted by least squares to the codes.

    Both steps repeat while they gain; the best row wins as a whole.
    """
    start, _ = _real_scales(problem)
    gammas, least = start, torch.full_like(start, torch.inf)
    for ratio in _GAMMA_RATIOS:
        _, error = search_scales(problem, start * ratio)
        error = error.sum(problem.shared, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        gammas = torch.where(better, start * ratio, gammas)
    stored, error = search_scales(problem, gammas, thorough=True)
    least = error.sum(problem.shared, keepdim=True)
    for _ in range(_REFITS):
        refitted = _refit(problem, gammas, stored)
        candidate, error = search_scales(problem, refitted, thorough=True)
        error = error.sum(problem.shared, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        gammas = torch.where(better, refitted, gammas)
        stored = torch.where(better, candidate, stored)
    return Choice(_stored(problem, stored), gammas, divisors=stored * gammas)


def _highest(problem: Problem) -> int:
    assert problem.format.scales is not None
    return 2**problem.format.scales.bits - 1


def _stored(problem: Problem, scales: Tensor) -> Tensor:
    assert problem.format.scales is not None
    return scales.to(integer_dtype(problem.format.scales.bits))


def _real_scales(problem: Problem) -> tuple[Tensor, Tensor]:
    """Coarse scale, and real scale of each vector, from the largest magnitudes."""
    amax = problem.amax()
    top = largest(amax, problem.shared)
    amax = amax.masked_fill(top < SMALLEST_ROW, 0.0)
    ideal = amax / problem.format.elements.highest
    return largest(ideal, problem.shared) / _highest(problem), ideal


def search_scales(problem: Problem, gammas: Tensor, thorough: bool = False) -> tuple[Tensor, Tensor]:
    """The integer scale of least squared error of each vector, as float32, and that error.

    A vector's best scale lies a little below the one at which nothing saturates, so that a window about 0.88 of it is
    enough unless the result is final.
    """
    highest = _highest(problem)
    ideal = problem.amax() / (nonzero(gammas) * problem.format.elements.highest)
    if thorough and highest <= 15:
        candidates = (torch.full_like(ideal, scale) for scale in range(1, highest + 1))
    elif highest <= 15:
        middle = (ideal * 0.88).round_()
        candidates = ((middle + step).clamp_(1, highest) for step in range(-3, 4))
    else:
        ratios = torch.linspace(0.55, 1.1, 24 if thorough else 8).tolist()
        candidates = ((ideal * ratio).round_().clamp_(1, highest) for ratio in ratios)
    best = torch.ones_like(ideal)
    least = torch.full_like(ideal, torch.inf)
    for candidate in candidates:
        error = problem.error(candidate * gammas, (2,))
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, candidate, best)
    return best.masked_fill_(ideal == 0, 0), least


def _refit(problem: Problem, gammas: Tensor, stored: Tensor) -> Tensor:
    """The coarse scale of least squared error for the codes that the scales give."""
    products = problem.format.elements.round_(problem.blocks / nonzero(stored * gammas)).mul_(stored)
    weighted = products if problem.weights is None else products * problem.weights
    along = (weighted * problem.blocks).sum(problem.shared, keepdim=True)
    square = (weighted * products).sum(problem.shared, keepdim=True)
    return torch.where(square > 0, along / square.clamp(min=1e-30), gammas)
