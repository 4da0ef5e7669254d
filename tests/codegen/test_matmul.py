"""Batched products of computed sides: all sizes, transposed sides, broadcast batch."""

from __future__ import annotations

import numpy as np
import pytest
from fenced import fenced, poisoned, untouched
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.codegen import Built, Operand, build, matmul_recipe
from taut.codegen._call import Kernel
from taut.errors import ArgumentError, KernelError


def f32(*shape: int | None, dense: bool = True) -> Operand:
    return Operand("float32", shape, dense)


ANY = f32(None, None, None)
TURNED = f32(None, None, None, dense=False)
SCALED = (("accumulator",), ("constant", 0.5), ("mul", 0, 1), ("operand", 2), ("add", 2, 3))
DENSE = matmul_recipe(ANY, ANY, ANY)
BOTH_TURNED = matmul_recipe(TURNED, TURNED, ANY, SCALED, [f32(None, None)])
SHARED = matmul_recipe(f32(None, None, 12), f32(1, 12, 40), f32(None, None, 40))


@pytest.fixture(scope="module")
def built() -> Built:
    return build([DENSE, BOTH_TURNED, SHARED])


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=80)
@given(st.integers(0, 3), st.integers(0, 20), st.integers(0, 20), st.integers(0, 70), st.integers(0, 2**31))
def test_products(built: Built, batch: int, m: int, k: int, n: int, seed: int) -> None:
    a, b, extra = normal(seed, batch, m, k), normal(seed + 1, batch, k, n), normal(seed + 2, m, n)
    expected = a.astype(np.float64) @ b
    around, fence = poisoned(np.zeros((batch, m, n), np.float32)), fenced(np.zeros((batch, m, n), np.float32))
    Kernel(built, DENSE)(poisoned(a), poisoned(b), around)
    Kernel(built, DENSE)(fenced(a), fenced(b), fence)
    np.testing.assert_allclose(fence, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(around, fence)
    assert untouched(around)
    turned = [fenced(np.ascontiguousarray(side.transpose(0, 2, 1))).transpose(0, 2, 1) for side in (a, b)]
    Kernel(built, BOTH_TURNED)(*turned, extra, fence)
    np.testing.assert_allclose(fence, 0.5 * expected + extra, rtol=1e-5, atol=2e-5)


@given(st.integers(0, 3), st.integers(0, 20))
def test_shared_side(built: Built, batch: int, m: int) -> None:
    a, b = normal(0, batch, m, 12), normal(1, 1, 12, 40)
    output = np.zeros((batch, m, 40), np.float32)
    Kernel(built, SHARED)(a, b, output)
    np.testing.assert_allclose(output, a @ b, rtol=1e-4, atol=2e-5)


def test_sizes_that_disagree_are_refused(built: Built) -> None:
    for shapes in [
        ((1, 2, 3), (1, 4, 5), (1, 2, 5)),
        ((1, 2, 3), (1, 3, 5), (1, 3, 5)),
        ((1, 2, 3), (1, 3, 5), (1, 2, 6)),
    ]:
        with pytest.raises(KernelError):
            Kernel(built, DENSE)(*[np.zeros(shape, np.float32) for shape in shapes])
    with pytest.raises(ArgumentError, match="b: got"):
        matmul_recipe(f32(1, 2, 3), f32(1, 4, 5), ANY)
    with pytest.raises(ArgumentError, match="a: got"):
        matmul_recipe(f32(2, 3), ANY, ANY)
