"""The last bit of a float32 coarse scale, so that numbers that were decoded encode to themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from taut.numerics._choice import Choice, Problem, element_codes, largest, scale_values

_NEAR = 2.0**-20  # of the largest magnitude: what one bit of gamma can explain


def settle_last_bit(problem: Problem, gammas: Tensor, choose_under: Callable[[Tensor], Choice]) -> Choice:
    """The choice under the prescribed coarse scales, or under a neighbour where that alone loses nothing.

    A scale that was `amax / n` gives a largest number `n * gamma` whose division by n can come out one bit off.

    Args:
        problem: the numbers.
        gammas: the prescribed coarse scales.
        choose_under: the rest of the choice, given coarse scales.
    """
    choice = choose_under(gammas)
    distance = _distance(problem, choice)
    off = (distance > 0) & (distance <= _NEAR * largest(problem.blocks, problem.shared))
    for end in (torch.inf, 0.0):
        if not bool(off.any()):
            break
        neighbours = torch.where(off, torch.nextafter(gammas, torch.full_like(gammas, end)), gammas)
        settled = off & (_distance(problem, choose_under(neighbours)) == 0)
        gammas, off = torch.where(settled, neighbours, gammas), off & ~settled
        choice = choose_under(gammas)
    return choice


def _distance(problem: Problem, choice: Choice) -> Tensor:
    """The largest change that encoding makes, for each coarse scale."""
    values = problem.format.elements.values(element_codes(problem, choice))
    if choice.scales is not None and problem.format.scales is not None:
        values.mul_(scale_values(choice.scales, problem.format.scales.kind))
    if choice.gammas is not None:
        values.mul_(choice.gammas)
    return largest(values.sub_(problem.blocks), problem.shared)
