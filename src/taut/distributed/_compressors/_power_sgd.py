"""Low-rank factors of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory, check_whole
from taut.distributed._compressors._low_rank import (
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
from taut.distributed._traffic import Message, Traffic


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """Two factors of low rank for each matrix, by one step of power iteration from those of the step before.

    "PowerSGD" (NeurIPS 2019), algorithms 1 and 2. A convolution counts as the matrix `out x (in * height * width)`.
    What has no two dimensions, or no fewer elements in its factors, is averaged whole. The result is the low-rank
    approximation of the mean over ranks of gradient plus residual; summed over ranks, what was sent plus the new
    residuals are the old residuals plus the gradients, within one rounding for each entry. Ranks compute the same
    bits on hosts of one kind. A NaN or infinity makes the matrix NaN in this step; its residual and factor then start
    anew.

    Args:
        rank: of the approximation; smaller for matrices that are smaller. After a change the factors of the step before
            are cut, or get new orthogonal columns.
        seed: of the first factors and of new columns; the same on all ranks.
    """

    reducible: ClassVar[bool] = True
    overlappable: ClassVar[bool] = False

    rank: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, 1)
        check_whole("seed", self.seed, 0)

    def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
        """Replace each matrix by the low-rank approximation of the mean, and what is no matrix by the mean."""
        matrices, whole = split(gradients, self.rank)
        given = [contribution(gradient, memory) for gradient in matrices]
        rights = [self._right(gradient, memory) for gradient in matrices]
        lefts = [project(matrix, right) for matrix, right in zip(given, rights, strict=True)]
        means = mean_of([*lefts, *(working(gradient.tensor) for gradient in whole)], communicator)
        lefts = [orthonormal(left) for left in means[: len(matrices)]]
        rights = mean_of([project(m.T, left) for m, left in zip(given, lefts, strict=True)], communicator)
        for gradient, left, right in zip(matrices, lefts, rights, strict=True):
            approximation = left @ right.T
            settle(gradient, approximation, memory)
            gradient.tensor.copy_(approximation.view(gradient.tensor.shape))
            keep_factor(gradient, RIGHT, right, memory)
        for gradient, mean in zip(whole, means[len(matrices) :], strict=True):
            gradient.tensor.copy_(mean)

    def traffic(self, shapes: Sequence[torch.Size], ranks: int) -> Traffic:
        """One all-reduce of the left factors and what is averaged whole, one of the right factors."""
        left = right = whole = 0
        for shape in shapes:
            rows, columns, rank = factors_of(shape, self.rank)
            left += rows * rank
            right += columns * rank
            whole += 0 if rank else shape.numel()
        messages = (Message("all_reduce", 4 * (left + whole)), Message("all_reduce", 4 * right))
        return Traffic(tuple(message for message in messages if message.size))

    def _right(self, gradient: Gradient, memory: Memory) -> torch.Tensor:
        _, columns, rank = factors_of(gradient.tensor.shape, self.rank)
        return factor(gradient, RIGHT, columns, rank, self.seed, memory)
