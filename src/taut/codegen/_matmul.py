"""The template "matmul": a batch of matrix products whose sides are both computed."""

from __future__ import annotations

from collections.abc import Sequence

from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError


def matmul_recipe(
    a: Operand,
    b: Operand,
    output: Operand,
    expression: Expression = (("accumulator",),),
    extra: Sequence[Operand] = (),
) -> Recipe:
    """A kernel for `y[B, M, N] = expression(a[B, M, K] @ b[B, K, N], extra...)`.

    Args:
        a: float32 [B or 1, M, K], of any strides where it is not dense.
        b: float32 [B or 1, K, N]; a transposed view is an operand that is not dense.
        output: [B, M, N]. Any size of the three may be dynamic, 0 included; K of 0 gives sums of 0.
        expression: the last entry is the result; ("accumulator",) is the product, ("operand", i) operand i from 2 on.
        extra: operands of rank 1 to 3 that align with the output.

    Returns:
        A recipe with the operands: a, b, the extra ones, then the output, which must overlap no input.

    Raises:
        ArgumentError: a rank or a static size does not fit.
    """
    for name, operand in (("a", a), ("b", b), ("output", output)):
        if len(operand.shape) != 3 or (name != "output" and operand.dtype != "float32"):
            raise ArgumentError(name, operand, expected="rank 3, and float32 as input")
    pairs = [(a.shape[2], b.shape[1]), (a.shape[1], output.shape[1]), (b.shape[2], output.shape[2])]
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ArgumentError("b", b.shape, expected=f"sizes that fit {a.shape} and {output.shape}")
    for operand in extra:
        if not 1 <= len(operand.shape) <= 3:
            raise ArgumentError("extra", operand.shape, expected="rank 1 to 3")
    return Recipe("matmul", (a, b, *extra, output), expression=expression)
