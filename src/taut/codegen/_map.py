"""The template "map": an expression on the elements of an iteration space, with reductions over its rows."""

from __future__ import annotations

from collections.abc import Sequence

from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError

MAX_RANK = 6


def map_recipe(expression: Expression, inputs: Sequence[Operand], output: Operand) -> Recipe:
    """A kernel that computes each element of an iteration space of rank 1 to 6.

    It covers chains of pointwise operations, reductions over the innermost dimension ("rows"), softmax and the
    normalisations. An exponential or the like that a reduction and the result both need is computed once.

    Args:
        expression: the last entry is the result. ("operand", i) is input i.
        inputs: aligned with the space from the innermost dimension on; a lower rank or a static size of 1 broadcasts.
            Any size may be dynamic (also 0 and 1), any stride other than the innermost is free, and that one too
            where the operand is not dense.
        output: the iteration space; its innermost size is 1 if the result is the same along the row. Conversion to its
            dtype is implicit.

    Returns:
        A recipe with the operands: inputs, then the output. A kernel may write over an input with the same strides,
        unless the expression has row operations.

    Raises:
        ArgumentError: a rank is out of range, or the output's sizes do not fit.
    """
    rank = len(output.shape)
    if not 1 <= rank <= MAX_RANK:
        raise ArgumentError("output", output.shape, expected=f"rank 1 to {MAX_RANK}")
    for number, operand in enumerate(inputs):
        if not 1 <= len(operand.shape) <= rank:
            raise ArgumentError("inputs", operand.shape, expected=f"rank 1 to {rank} of input {number}")
        for size, wanted in zip(operand.shape[:-1][::-1], output.shape[:-1][::-1], strict=False):
            if None not in (size, wanted) and size not in (1, wanted):
                raise ArgumentError(
                    "inputs", operand.shape, expected=f"sizes of input {number} that fit {output.shape}"
                )
    if not expression:
        raise ArgumentError("expression", expression, expected="at least one entry")
    return Recipe("map", (*inputs, output), expression=expression)
