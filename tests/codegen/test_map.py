"""Maps compute what numpy does in double precision, for every shape, and touch nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fenced import fenced, poisoned, untouched
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.codegen import Built, Operand, Recipe, build, map_recipe
from taut.codegen._call import Kernel
from taut.errors import ArgumentError, KernelError


def f32(*shape: int | None, dense: bool = True) -> Operand:
    return Operand("float32", shape, dense)


def layer_norm(width: int | None, scale: float) -> tuple[tuple, ...]:
    return (
        ("operand", 0),
        ("row_sum", 0),
        ("constant", scale),
        ("mul", 1, 2),
        ("sub", 0, 3),
        ("mul", 4, 4),
        ("row_sum", 5),
        ("mul", 6, 2),
        ("constant", 1e-5),
        ("add", 7, 8),
        ("rsqrt", 9),
        ("mul", 4, 10),
        ("operand", 1),
        ("mul", 11, 12),
    )


SOFTMAX = (("operand", 0), ("row_max", 0), ("sub", 0, 1), ("exp", 2), ("row_sum", 3), ("div", 3, 4))
RECIPES = {
    "add": map_recipe(
        (("operand", 0), ("operand", 1), ("add", 0, 1), ("operand", 2), ("mul", 2, 3)),
        [f32(None, None, None), f32(None, 1, None), f32(None)],
        f32(None, None, None),
    ),
    "softmax": map_recipe(SOFTMAX, [f32(None, None)], f32(None, None)),
    "softmax1": map_recipe(SOFTMAX, [f32(None)], f32(None)),
    "norm": map_recipe(layer_norm(40, 1 / 40), [f32(None, None, 40), f32(40)], f32(None, None, 40)),
    "max": map_recipe((("operand", 0), ("row_max", 0)), [f32(None, None)], f32(None, 1)),
    "mean": map_recipe(
        (("operand", 0), ("row_sum", 0), ("constant", 1.0), ("row_sum", 2), ("div", 1, 3)), [f32(None)], f32(1)
    ),
    "softmax of one": map_recipe(SOFTMAX, [f32(None, 1)], f32(None, 3)),
    "min": map_recipe((("operand", 0), ("row_min", 0)), [f32(None, None, dense=False)], f32(None, 1)),
    "sum64": map_recipe(
        (("operand", 0), ("row_sum", 0)), [Operand("int64", (None, None))], Operand("int64", (None, 1))
    ),
    "strided": map_recipe((("operand", 0), ("neg", 0)), [f32(None, None, dense=False)], f32(None, None)),
    "mask": map_recipe(
        (("operand", 0), ("operand", 1), ("constant", float("-inf")), ("where", 0, 1, 2)),
        [Operand("bool", (None, None)), f32(None, None)],
        f32(None, None),
    ),
    "less": map_recipe(
        (("operand", 0), ("constant", 0.0), ("lt", 0, 1)), [f32(None, None)], Operand("bool", (None, None))
    ),
    "bfloat16": map_recipe(
        (("operand", 0), ("constant", 2), ("mul", 0, 1)),
        [Operand("bfloat16", (None, None))],
        Operand("bfloat16", (None, None)),
    ),
    "six": map_recipe((("operand", 0), ("abs", 0)), [f32(*[None] * 6)], f32(*[None] * 6)),
}


@pytest.fixture(scope="module")
def built() -> Built:
    return build(RECIPES.values())


def run(built: Built, name: str, *inputs: np.ndarray, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """The result, equal whether the operands are strided amid poison or end at a forbidden page."""
    recipe: Recipe = RECIPES[name]
    kernel = Kernel(built, recipe)
    output = np.zeros(shape, dtype)
    fence = fenced(output)
    kernel(*[fenced(array) for array in inputs], fence)
    if dtype is np.float32:
        around = poisoned(output)
        kernel(*[poisoned(array) if array.dtype == np.float32 else array for array in inputs], around)
        assert untouched(around)
        np.testing.assert_array_equal(around, fence)
    return np.array(fence)


sizes = st.integers(0, 40)
seeds = st.integers(0, 2**31)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_row_of_equal_values_is_as_long_as_the_output(built: Built) -> None:
    x, found = np.ones((4, 1), np.float32), np.zeros((4, 3), np.float32)
    Kernel(built, RECIPES["softmax of one"])(x, found)
    np.testing.assert_allclose(found, np.full((4, 3), 1 / 3), rtol=1e-5)


@pytest.mark.parametrize("width", [1, 31, 32, 33, 400])
def test_a_row_of_ones_counts_its_elements(built: Built, width: int) -> None:
    x, found = np.linspace(0, 1, width, dtype=np.float32), np.zeros(1, np.float32)
    Kernel(built, RECIPES["mean"])(x, found)
    np.testing.assert_allclose(found, x.mean(keepdims=True), rtol=1e-5)


@settings(max_examples=40)
@given(st.integers(0, 4), st.integers(0, 4), sizes, seeds)
def test_operands_broadcast(built: Built, a: int, b: int, c: int, seed: int) -> None:
    x, y, z = normal(seed, a, b, c), normal(seed + 1, a, 1, c), normal(seed + 2, c)
    np.testing.assert_allclose(run(built, "add", x, y, z, shape=(a, b, c)), (x + y) * z, rtol=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 5), st.integers(0, 100), seeds)
def test_softmax(built: Built, rows: int, width: int, seed: int) -> None:
    x = normal(seed, rows, width) * 10
    exponentials = np.exp((x - x.max(axis=1, keepdims=True, initial=-1e9)).astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(built, "softmax", x, shape=x.shape), expected, rtol=2e-6, atol=1e-37)
    if rows:
        np.testing.assert_allclose(run(built, "softmax1", x[0], shape=(width,)), expected[0], rtol=2e-6, atol=1e-37)


@given(st.integers(0, 3), st.integers(0, 5), seeds)
def test_layer_norm(built: Built, a: int, b: int, seed: int) -> None:
    x, weight = normal(seed, a, b, 40), normal(seed + 1, 40)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(run(built, "norm", x, weight, shape=x.shape), expected, atol=3e-6)


@given(st.integers(0, 3), st.integers(1, 100), seeds, st.integers(0, 99))
def test_reductions_of_rows(built: Built, rows: int, width: int, seed: int, hole: int) -> None:
    x = normal(seed, rows, width)
    if rows and hole < width:
        x[0, hole] = -np.nan
    np.testing.assert_array_equal(run(built, "max", x, shape=(rows, 1)), x.max(axis=1, keepdims=True))
    np.testing.assert_array_equal(run(built, "min", x, shape=(rows, 1)), x.min(axis=1, keepdims=True))
    whole = np.random.default_rng(seed).integers(-(2**40), 2**40, (rows, width))
    result = run(built, "sum64", whole, shape=(rows, 1), dtype=np.int64)
    np.testing.assert_array_equal(result, whole.sum(axis=1, keepdims=True))


@given(sizes, sizes, seeds)
def test_strides_and_types(built: Built, a: int, b: int, seed: int) -> None:
    x = normal(seed, b, a)
    output = np.zeros((a, b), np.float32)
    Kernel(built, RECIPES["strided"])(x.T, output)
    np.testing.assert_array_equal(output, -x.T)
    chosen = x > 0
    np.testing.assert_array_equal(run(built, "mask", chosen, x, shape=(b, a)), np.where(chosen, x, -np.inf))
    np.testing.assert_array_equal(run(built, "less", x, shape=(b, a), dtype=np.bool_), x < 0)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    doubled = run(built, "bfloat16", bits, shape=(b, a), dtype=np.uint16)
    expected = 2 * (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal((doubled.astype(np.uint32) << 16).view(np.float32), expected)


@given(sizes, sizes, seeds)
def test_over_its_own_input(built: Built, a: int, b: int, seed: int) -> None:
    x = normal(seed, a, b)
    expected = -x
    Kernel(built, RECIPES["strided"])(x, x)
    np.testing.assert_array_equal(x, expected)


def test_six_dimensions(built: Built) -> None:
    x = normal(0, 2, 3, 1, 2, 3, 5)
    np.testing.assert_array_equal(run(built, "six", x, shape=x.shape), np.abs(x))


def test_softmax_passes_nan_and_masks(built: Built) -> None:
    x = np.zeros((3, 20), np.float32)
    x[0, 7] = np.nan
    x[1] = -np.inf
    x[2, :19] = -np.inf
    result = run(built, "softmax", x, shape=x.shape)
    assert np.isnan(result[:2]).all()
    np.testing.assert_array_equal(result[2], np.eye(20)[19])


def test_sizes_that_disagree_are_refused(built: Built) -> None:
    with pytest.raises(KernelError, match="operand1"):
        Kernel(built, RECIPES["norm"])(normal(0, 1, 1, 40), normal(0, 39), normal(0, 1, 1, 40))
    with pytest.raises(KernelError, match="stride"):
        Kernel(built, RECIPES["softmax"])(normal(0, 4, 4).T, normal(0, 4, 4))


def test_recipes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ArgumentError, match="output"):
        map_recipe(SOFTMAX, [f32(3)], f32(*[None] * 7))
    with pytest.raises(ArgumentError, match="inputs"):
        map_recipe(SOFTMAX, [f32(3, 3, 3)], f32(3, 3))
    with pytest.raises(ArgumentError, match="inputs"):
        map_recipe(SOFTMAX, [f32(4, 3)], f32(5, 3))
    with pytest.raises(ArgumentError, match="expression"):
        map_recipe((), [f32(3)], f32(3))


# Halide took minutes for these: it looked for bounds through the polynomial of a clamped value.
BOUNDS_IN_POLYNOMIALS = {
    "gelu(x) - x": (("operand", 0), ("gelu", 0), ("sub", 1, 0)),
    "gelu three times": (("operand", 0), ("gelu", 0), ("gelu", 1), ("gelu", 2)),
    "many functions": (("operand", 0), ("tanh", 0), ("gelu", 1), ("erf", 2), ("sigmoid", 3)),
    "sum of gelu(x) - x": (("operand", 0), ("gelu", 0), ("sub", 1, 0), ("row_sum", 2), ("mul", 2, 3)),
}


def test_bounds_in_polynomials_are_generated_soon(tmp_path: Path) -> None:
    recipes = [map_recipe(entries, [f32(None, None)], f32(None, None)) for entries in BOUNDS_IN_POLYNOMIALS.values()]
    assert not build(recipes, cache=tmp_path, timeout=30.0).failed
