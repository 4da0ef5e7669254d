"""The template "linear": a matrix product with packed weights and whatever follows it element by element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from taut.codegen._recipe import Expression, Operand, Recipe
from taut.errors import ArgumentError

VECTOR = 16
"""Columns that one vector of weights holds."""

# Rows of a register tile by its vectors of columns: what fits 32 registers beside the weights.
TILE_ROWS = {1: 8, 2: 8, 3: 8, 4: 6, 5: 5, 6: 4}


def linear_recipe(
    k: int,
    n: int,
    expression: Expression = (("accumulator",),),
    extra: Sequence[Operand] = (),
    *,
    rows: int | None = None,
    dtype: str = "float32",
) -> Recipe:
    """A kernel for `y[M, N] = expression(x[M, K] @ weight.T, extra...)`.

    Args:
        k: columns of x.
        n: columns of y.
        expression: the last entry is the result; ("accumulator",) is the product, ("operand", i) operand i from 2 on.
        extra: operands of rank 1 or 2 that align with y: a bias [N], a residual [M, N], a scale [1, 1]...
        rows: M where it is static, else it may be any number, 0 included.
        dtype: of y.

    Returns:
        A recipe with the operands: x [M, K] (its rows may be strided), the weights as `pack_linear` gives them, the
        extra ones, then y [M, N] (rows may be strided). y must overlap no input; if the expression
        is not heavy (`is_heavy`), it may lie on an extra operand [M, N].

    Raises:
        ArgumentError: a size is below 1, or an operand does not fit.
    """
    for name, size in (("k", k), ("n", n)):
        if size < 1:
            raise ArgumentError(name, size, expected="at least 1")
    for operand in extra:
        sizes = (rows, n)[2 - len(operand.shape) :] if len(operand.shape) in (1, 2) else ()
        if not sizes or any(size not in (1, want) for size, want in zip(operand.shape, sizes, strict=True)):
            raise ArgumentError("extra", operand.shape, expected=f"shapes that align with ({rows}, {n})")
    x = Operand("float32", (rows, k))
    return Recipe(
        "linear", (x, Operand("float32", packed_shape(k, n)), *extra, Operand(dtype, (rows, n))), expression=expression
    )


def pack_linear(weight: npt.NDArray[np.float32], columns: int | None = None) -> npt.NDArray[np.float32]:
    """Weights [N, K], as torch.nn.Linear has them, in column blocks [ceil(N / columns), K, columns], zero-padded."""
    n, k = weight.shape
    columns = packed_shape(k, n)[2] if columns is None else columns
    blocks = -(-n // columns)
    padded = np.zeros((blocks * columns, k), np.float32)
    padded[:n] = weight
    return np.ascontiguousarray(padded.reshape(blocks, columns, k).transpose(0, 2, 1))


def packed_shape(k: int, n: int) -> tuple[int, int, int]:
    """Blocks, K, and columns of a block: four vectors unless another number divides N; the last may be partly used."""
    if n <= VECTOR:
        return 1, k, 1 << (n - 1).bit_length()
    vectors = -(-n // VECTOR)
    block = vectors if vectors in TILE_ROWS else next((size for size in (4, 3, 5, 6) if vectors % size == 0), 4)
    return -(-vectors // block), k, block * VECTOR
