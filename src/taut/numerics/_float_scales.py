"""Choosing scales that are powers of two (MX) or E4M3 numbers under a coarse scale (NVFP4)."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.numerics._choice import SMALLEST_ROW, Choice, Problem, largest, nonzero, scale_values
from taut.numerics._elements import E4M3
from taut.numerics._last_bit import settle_last_bit

_STEPS = (-1, 0, 1)


def choose_shared_exponent(problem: Problem) -> Choice:
    """The exponent of the largest magnitude less that of the largest element (OCP MX 1.0, section 6.3)."""
    return _powers(_shared_exponents(problem))


def search_shared_exponent(problem: Problem) -> Choice:
    """The exponent of least squared error among the prescribed one and its neighbours."""
    start = _shared_exponents(problem)
    best, least = start, torch.full(start.shape, torch.inf, device=start.device)
    for step in _STEPS:
        candidate = (start + step).clamp_(0, 254)
        error = problem.error(scale_values(candidate, "e8m0"), (2,))
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, candidate, best)
    return _powers(best)


def _shared_exponents(problem: Problem) -> Tensor:
    """Biased exponents, int32 in 0..254."""
    amax = problem.amax()
    mantissas, exponents = torch.frexp(amax)  # amax = mantissa * 2**exponent, mantissa in [0.5, 1)
    shared = exponents - 1 - problem.format.elements.highest_exponent + 127
    return shared.masked_fill(mantissas == 0, 0).clamp_(0, 254)


def _powers(exponents: Tensor) -> Choice:
    stored = exponents.to(torch.uint8)
    return Choice(stored, None, divisors=scale_values(stored, "e8m0"))


def choose_e4m3(problem: Problem) -> Choice:
    """Tensor scale from the largest magnitude of all, vector scales from those of the vectors, rounded to E4M3."""
    ideal = problem.amax() / problem.format.elements.highest

    def choose_under(gammas: Tensor) -> Choice:
        return _e4m3(E4M3.round_(ideal / nonzero(gammas)), gammas)

    return settle_last_bit(problem, _tensor_scale(problem), choose_under)


def search_e4m3(problem: Problem) -> Choice:
    """The E4M3 scale of least squared error within a third of the one that the largest magnitude gives."""
    gammas = _tensor_scale(problem)
    ideal = problem.amax() / problem.format.elements.highest / nonzero(gammas)
    best, least = torch.zeros_like(ideal), torch.full_like(ideal, torch.inf)
    for ratio in torch.linspace(0.65, 1.55, 20).tolist():
        candidate = E4M3.round_(ideal * ratio)
        error = problem.error(candidate * gammas, (2,))
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, candidate, best)
    return _e4m3(best, gammas)


def _tensor_scale(problem: Problem) -> Tensor:
    amax = largest(problem.blocks, problem.shared)
    scale = amax / (problem.format.elements.highest * E4M3.highest)
    return scale.masked_fill_(amax < SMALLEST_ROW, 0.0)


def _e4m3(scales: Tensor, gammas: Tensor) -> Choice:
    return Choice(E4M3.codes(scales), gammas, divisors=scales * gammas)
