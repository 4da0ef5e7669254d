"""Linear layers: any number of rows, any size, any epilogue, and nothing outside is touched."""

from __future__ import annotations

import numpy as np
import pytest
from fenced import fenced, poisoned, untouched
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.codegen import Built, Operand, Recipe, build, linear_recipe, pack_linear
from taut.codegen._call import Kernel
from taut.errors import ArgumentError, KernelError

BIAS = (("accumulator",), ("operand", 2), ("add", 0, 1))
RESIDUAL = (*BIAS, ("relu", 2), ("operand", 3), ("add", 3, 4))
TANH = (*BIAS, ("tanh", 2))
SIZES = [(1, 1), (8, 8), (33, 5), (17, 70), (64, 130)]


def f32(*shape: int | None) -> Operand:
    return Operand("float32", shape)


PLAIN = {size: linear_recipe(*size, BIAS, [f32(size[1])]) for size in SIZES}
TANHS = {size: linear_recipe(*size, TANH, [f32(1, size[1])]) for size in SIZES[1:3]}
BOTH = linear_recipe(24, 50, RESIDUAL, [f32(50), f32(None, 50)])
HALF = {
    name: linear_recipe(24, 50, epilogue, [f32(50)], dtype="bfloat16") for name, epilogue in [("b", BIAS), ("t", TANH)]
}
STATIC = {rows: linear_recipe(24, 50, rows=rows) for rows in (1, 11)}


@pytest.fixture(scope="module")
def built() -> Built:
    return build([*PLAIN.values(), *TANHS.values(), BOTH, *HALF.values(), *STATIC.values()])


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(built: Built, recipe: Recipe, x: np.ndarray, weight: np.ndarray, *extra: np.ndarray) -> np.ndarray:
    """The result, equal whether rows are strided amid NaN or all operands end at a forbidden page."""
    kernel = Kernel(built, recipe)
    packed = pack_linear(weight)
    output = np.zeros((len(x), len(weight)), np.float32)
    around, fence = poisoned(output), fenced(output)
    kernel(poisoned(x), packed, *[poisoned(array) for array in extra], around)
    kernel(*[fenced(array) for array in (x, packed, *extra)], fence)
    assert untouched(around)
    np.testing.assert_array_equal(around, fence)
    return np.array(fence)


@settings(max_examples=80)
@given(st.sampled_from(SIZES), st.integers(0, 40), st.integers(0, 2**31))
def test_every_number_of_rows(built: Built, size: tuple[int, int], rows: int, seed: int) -> None:
    k, n = size
    x, weight, bias = normal(seed, rows, k), normal(seed + 1, n, k), normal(seed + 2, n)
    expected = x.astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(run(built, PLAIN[size], x, weight, bias), expected, rtol=1e-5, atol=2e-5)
    if size in TANHS:
        result = run(built, TANHS[size], x, weight, bias[None])
        np.testing.assert_allclose(result, np.tanh(expected), rtol=1e-5, atol=2e-5)


@given(st.integers(0, 20), st.integers(0, 2**31))
def test_epilogues(built: Built, rows: int, seed: int) -> None:
    x, weight, bias, residual = normal(seed, rows, 24), normal(1, 50, 24), normal(2, 50), normal(3, rows, 50)
    product = x.astype(np.float64) @ weight.T + bias
    expected = np.maximum(product, 0) + residual
    np.testing.assert_allclose(run(built, BOTH, x, weight, bias, residual), expected, rtol=1e-5, atol=2e-5)
    for name, reference in [("b", product), ("t", np.tanh(product))]:
        bits = np.zeros((rows, 50), np.uint16)
        Kernel(built, HALF[name])(x, pack_linear(weight), bias, bits)
        values = (bits.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(values, reference, rtol=2**-8, atol=2e-5)


def test_static_rows(built: Built) -> None:
    for rows, recipe in STATIC.items():
        x, weight = normal(0, rows, 24), normal(1, 50, 24)
        np.testing.assert_allclose(run(built, recipe, x, weight), x @ weight.T, rtol=1e-4, atol=2e-5)


def test_rows_that_disagree_are_refused(built: Built) -> None:
    x, weight, bias = normal(0, 3, 8), normal(1, 8, 8), normal(2, 8)
    with pytest.raises(KernelError, match="extent"):
        Kernel(built, PLAIN[8, 8])(x, pack_linear(weight), bias, np.zeros((4, 8), np.float32))


def test_recipes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ArgumentError, match="k: got 0"):
        linear_recipe(0, 3)
    with pytest.raises(ArgumentError, match="extra"):
        linear_recipe(3, 3, BIAS, [f32(4)])
