"""Rounding that compensates: the error of each weight is made good by those that are still to be rounded."""

from __future__ import annotations

import torch
from torch import Tensor

from taut.errors import ArgumentError
from taut.numerics._choice import Choice, Chooser, Problem, integer_dtype, nonzero
from taut.numerics._exact import keep_exact
from taut.numerics._format import Format, Geometry
from taut.numerics._integer_scales import choose_joint, search_scales
from taut.numerics._ranges import choose_mse

_DAMPING = 0.01  # of the mean square of the inputs, on each
_BLOCK = 128  # columns whose errors reach the columns behind the block in one product


def can_compensate(number_format: Format) -> bool:
    """Whether a format's scales can be settled vector by vector under a coarse scale a row."""
    per_row = number_format.coarse is not None and number_format.coarse.per == "row"
    integer = number_format.scales is None or number_format.scales.kind == "integer"
    return per_row and integer and number_format.offset == "none"


def compensating(number_format: Format, moments: Tensor | None, sizes: Geometry, device: torch.device) -> Chooser:
    """The chooser for inputs with given second moments.

    The coarse scale of a row is chosen first, under the diagonal of the moments. Then the columns are rounded one after
    another; the error of each is spread over those behind it as the moments say is best, and the scale of a vector
    is searched when its first column comes up. After Frantar et al., "GPTQ" (ICLR 2023), section 3, in the grid of a
    format with scales a vector.

    Args:
        number_format: the number format.
        moments: `(columns, columns)`, the mean of x x^T over the inputs x of the layer.
        sizes: how the weight is cut.
        device: of the weight.

    Raises:
        ArgumentError: the format has no such scales; the moments are missing, of another shape, not symmetric, not
            finite, or not positive.
    """
    if not can_compensate(number_format):
        raise ArgumentError(
            "chooser",
            "compensate",
            expected=f"another one for {number_format.name}: this needs a scale a row, alone or over integer scales",
        )
    columns = sizes.columns
    shown = tuple(moments.shape) if isinstance(moments, Tensor) else type(moments).__name__
    if not isinstance(moments, Tensor) or moments.shape != (columns, columns) or not moments.is_floating_point():
        raise ArgumentError("moments", shown, expected=f"a floating-point tensor of shape ({columns}, {columns})")
    square = moments.detach().to(device=device, dtype=torch.float64)
    if not bool(torch.isfinite(square).all()):
        raise ArgumentError("moments", "NaN or infinity", expected="the mean of x x^T over finite inputs x")
    mean = square.diagonal().mean() if columns else square.new_zeros(())
    damped = square + torch.eye(columns, dtype=torch.float64, device=device) * (_DAMPING * mean + 1e-30)
    root, failed = torch.linalg.cholesky_ex(damped)
    if bool((square - square.T).abs().amax() > 1e-3 * square.abs().amax()) if columns else False:
        raise ArgumentError("moments", "a matrix that is not symmetric", expected="the mean of x x^T over inputs x")
    if int(failed):
        raise ArgumentError("moments", "a matrix that is not positive", expected="the mean of x x^T over inputs x")
    spread = torch.linalg.cholesky(torch.cholesky_inverse(root), upper=True).to(torch.float32)
    diagonal = square.diagonal().to(torch.float32)

    def choose(problem: Problem) -> Choice:
        return _compensate(problem, spread, diagonal, sizes)

    return keep_exact(choose)


def _compensate(problem: Problem, spread: Tensor, diagonal: Tensor, sizes: Geometry) -> Choice:
    number_format, rows = problem.format, problem.blocks.shape[0]
    elements, scales = number_format.elements, number_format.scales
    weighted = Problem(problem.blocks, number_format, sizes.to_blocks(diagonal.unsqueeze(0)))
    gammas = (choose_mse if scales is None else choose_joint)(weighted).gammas
    assert gammas is not None
    left = sizes.to_rows(problem.blocks).clone()
    values = torch.zeros_like(left)
    stored = left.new_zeros(rows, sizes.groups, 1)
    divisors = gammas.view(rows, 1)
    importance = spread.diagonal().square().reciprocal()
    for start in range(0, sizes.columns, _BLOCK):
        stop = min(start + _BLOCK, sizes.columns)
        errors = left.new_zeros(rows, stop - start)
        for column in range(start, stop):
            place = column % sizes.length
            if scales is not None and place % sizes.vector == 0:
                group = column // sizes.length * sizes.vectors + place // sizes.vector
                end = min(column + sizes.vector, column - place + sizes.length)
                vector = Problem(left[:, None, column:end], number_format, importance[column:end])
                found, _ = search_scales(vector, gammas, thorough=True)
                stored[:, group] = found[:, 0]
                divisors = found[:, 0] * gammas[:, 0]
            current = left[:, column : column + 1]
            code = elements.round_(current / nonzero(divisors))
            values[:, column : column + 1] = code
            error = (current - code * divisors) / spread[column, column]
            errors[:, column - start : column - start + 1] = error
            left[:, column + 1 : stop] -= error * spread[column, column + 1 : stop]
        left[:, stop:] -= errors @ spread[start:stop, stop:]
    codes = elements.codes(sizes.to_blocks(values))
    integers = None if scales is None else stored.to(integer_dtype(scales.bits))
    return Choice(integers, gammas, codes=codes)
