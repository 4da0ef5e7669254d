"""Low-rank factors, one of the two in each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory, check_whole
from taut.distributed._compressors._low_rank import (
    LEFT,
    RIGHT,
    contribution,
    factor,
    factors_of,
    keep_factor,
    mean_of,
    orthonormal,
    project,
    settle,
    split,
    working,
)
from taut.distributed._memory import next_step
from taut.distributed._traffic import Message, Traffic


@dataclass(frozen=True)
class AlternatingPowerSGD(Compressor):
    """One factor of low rank for each matrix and step, left and right in turn: one all-reduce instead of two.

    "ACP-SGD" (ICDCS 2023): the factor that the other turn has found, made orthonormal, is what this one projects on.
    What a rank sent, its own projection, plus its new residual is its old residual plus its gradient, within one
    rounding for each entry. What has no two dimensions, or no fewer elements in its factors, is averaged whole. Ranks
    compute the same bits on hosts of one kind. A NaN or infinity makes the matrix NaN in this step; its residual then
    starts anew.

    Args:
        rank: of the approximation; smaller for matrices that are smaller.
        seed: of the first factors and of new columns; the same on all ranks.
    """

    reducible: ClassVar[bool] = True
    overlappable: ClassVar[bool] = True

    rank: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, 1)
        check_whole("seed", self.seed, 0)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each matrix by the mean of the ranks' projections, and what is no matrix by the mean."""
        matrices, whole = split(gradients, self.rank)
        turns = [next_step(gradient.name, memory) % 2 for gradient in matrices]
        bases = [self._basis(gradient, turn, memory) for gradient, turn in zip(matrices, turns, strict=True)]
        found = []
        for gradient, turn, basis in zip(matrices, turns, bases, strict=True):
            given = contribution(gradient, memory)
            found.append(project(given.T if turn else given, basis))
            settle(gradient, _product(found[-1], basis, turn), memory)
        means = mean_of([*found, *(working(gradient.tensor) for gradient in whole)], communicator)
        for gradient, turn, basis, mean in zip(matrices, turns, bases, means, strict=False):
            gradient.tensor.copy_(_product(mean, basis, turn).view(gradient.tensor.shape))
            keep_factor(gradient, RIGHT if turn else LEFT, mean, memory)
        for gradient, mean in zip(whole, means[len(matrices) :], strict=True):
            gradient.tensor.copy_(mean)

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """One all-reduce of one factor, the mean over the two turns, and what is averaged whole."""
        elements = 0.0
        for shape in shapes:
            rows, columns, rank = factors_of(shape, self.rank)
            elements += rank * (rows + columns) / 2 if rank else shape.numel()
        return Traffic((Message("all_reduce", 4 * elements),))

    def _basis(self, gradient: Gradient, turn: int, memory: Memory) -> torch.Tensor:
        rows, columns, rank = factors_of(gradient.tensor.shape, self.rank)
        side, length = (LEFT, rows) if turn else (RIGHT, columns)
        return orthonormal(factor(gradient, side, length, rank, self.seed, memory))


def _product(found: torch.Tensor, basis: torch.Tensor, turn: int) -> torch.Tensor:
    return basis @ found.T if turn else found @ basis.T
