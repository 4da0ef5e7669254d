"""Generated convolutions against torch in float64, over sizes, borders, strides of memory, and epilogues."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pixel_reference import channels_of, convolve, guarded, image, outputs, run

from taut.codegen._build import build
from taut.codegen._call import Kernel
from taut.codegen._convolution import convolution_recipe, pack_convolution
from taut.codegen._convolution_window import Window
from taut.codegen._recipe import Operand
from taut.errors import ArgumentError

BIAS_RELU = (("accumulator",), ("operand", 2), ("add", 0, 1), ("relu", 2))
RESIDUAL = (*BIAS_RELU[:3], ("operand", 3), ("add", 2, 3), ("relu", 4))


def recipe(depth, channels, window, *, batch=None, rows=None, columns=None, residual=False, channels_first=False):
    shape = (batch, depth, rows, columns) if channels_first else (batch, rows, columns, depth)
    extras = [Operand("float32", (channels,))]
    if residual:
        extras.append(Operand("float32", (None, None, None, channels)))
    return convolution_recipe(
        Operand("float32", shape),
        channels,
        window,
        extras=extras,
        expression=RESIDUAL if residual else BIAS_RELU,
        channels_first=channels_first,
    )


RECIPES = {
    "3x3": recipe(16, 16, Window((3, 3), padding=(1, 1, 1, 1)), residual=True),
    "few channels, stride 2": recipe(3, 24, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    "dilation 2, channels that fill no vector": recipe(24, 40, Window((3, 3), padding=(2, 2, 2, 2), dilation=(2, 2))),
    "channels first": recipe(3, 32, Window((7, 7), (2, 2), (3, 3, 3, 3)), channels_first=True),
    "1x1": recipe(20, 72, Window((1, 1))),
    "1x1, stride 2": recipe(16, 32, Window((1, 1), (2, 2))),
    "uneven": recipe(32, 48, Window((2, 3), (1, 2), (0, 2, 1, 0))),
    "one channel": recipe(1, 1, Window((3, 3), padding=(1, 1, 1, 1))),
    "static": recipe(64, 64, Window((3, 3), padding=(1, 1, 1, 1)), rows=8, columns=8),
    "static 1x1": recipe(20, 72, Window((1, 1)), rows=1, columns=49),
    "static 1x1, residual": recipe(32, 24, Window((1, 1)), rows=5, columns=11, residual=True),
    "static 1x1, one block of 80": recipe(20, 78, Window((1, 1)), rows=1, columns=49, residual=True),
    "one column": recipe(3, 32, Window((3, 3), padding=(1, 1, 1, 1)), columns=1),
    "one column, channels first": recipe(3, 32, Window((3, 3), padding=(1, 1, 1, 1)), columns=1, channels_first=True),
    "one row": recipe(3, 16, Window((1, 3), (1, 2), (0, 0, 2, 1)), rows=1),
    "one row, channels first": recipe(2, 24, Window((1, 5), padding=(0, 0, 3, 1)), rows=1, channels_first=True),
    "static 4 columns": recipe(3, 16, Window((1, 3), (1, 2), (0, 0, 2, 1)), rows=1, columns=4),
    "static 4 columns, channels first": recipe(
        3, 16, Window((1, 3), (1, 2), (0, 0, 2, 1)), rows=1, columns=4, channels_first=True
    ),
    "static batch, 4 columns": recipe(
        3, 16, Window((1, 3), (1, 2), (0, 0, 2, 1)), batch=4, rows=1, columns=4, channels_first=True
    ),
    "static batch, 1 column": recipe(3, 16, Window((1, 3), padding=(0, 0, 1, 1)), batch=2, rows=4, columns=1),
    "static 1x1, 4 rows, channels first": recipe(3, 16, Window((1, 1)), rows=4, columns=1, channels_first=True),
    "static pixel": recipe(1, 20, Window((3, 1), (2, 2), (1, 1, 0, 0)), rows=1, columns=1),
    "static, narrower than a tile": recipe(5, 24, Window((3, 3), padding=(1, 1, 1, 1)), rows=2, columns=3),
    "static, odd": recipe(128, 80, Window((3, 3), (2, 2), padding=(1, 1, 1, 1)), rows=15, columns=13),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    built = build(RECIPES.values(), cache=tmp_path_factory.mktemp("cache"))
    assert not built.failed
    return {name: Kernel(built, recipe) for name, recipe in RECIPES.items()}


DYNAMIC = [name for name, made in RECIPES.items() if None in made.operands[0].shape[1:]]
STATIC = [
    (name, batch)
    for name, made in RECIPES.items()
    if name not in DYNAMIC
    for batch in ((0, 1, 3) if made.operands[0].shape[0] is None else made.operands[0].shape[:1])
]


def image_sizes(made):
    """Rows and columns of the image, None where they are not static."""
    return made.operands[0].shape[2:] if made.parameters["channels_first"] else made.operands[0].shape[1:3]


def sizes_of(name, rows, columns):
    """Rows and columns that the recipe accepts, its own where they are static."""
    sizes = image_sizes(RECIPES[name])
    rows, columns = (given if size is None else size for size, given in zip(sizes, (rows, columns), strict=True))
    assume(min(outputs(Window.of(RECIPES[name]), rows, columns)) > 0)
    return rows, columns


def compare(kernels, name, batch, rows, columns, *, contiguous=False):
    made = RECIPES[name]
    window = Window.of(made)
    rng = np.random.default_rng(batch * 10000 + rows * 100 + columns)
    depth, channels = made.operands[1].shape[3] or 0, channels_of(made.operands[-1])
    shape = (batch, *outputs(window, rows, columns), channels)
    first = made.parameters["channels_first"]
    x = image(rng, *((batch, depth, rows, columns) if first else (batch, rows, columns, depth)), contiguous=contiguous)
    weight = rng.standard_normal((channels, depth, *window.kernel)).astype(np.float32)
    bias = image(rng, channels, contiguous=True)
    residual = [image(rng, *shape, contiguous=contiguous)] if len(made.operands) == 5 else []
    output = run(kernels[name], [x, guarded(pack_convolution(weight, made)), bias, *residual], shape)
    sums = convolve(x.transpose(0, 2, 3, 1) if first else x, weight, window) + bias
    expected = np.maximum(sums + residual[0] if residual else sums, 0)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=3e-6 * np.sqrt(weight[0].size))


@pytest.mark.parametrize("name", DYNAMIC)
@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=25, deadline=None)
@example(1, 3, 3, False)
@example(1, 17, 67, True)
@example(2, 70, 3, False)
def test_any_size_is_right(kernels, name, batch, rows, columns, contiguous):
    rows, columns = sizes_of(name, rows, columns)
    compare(kernels, name, batch, rows, columns, contiguous=contiguous)


@pytest.mark.parametrize("name", DYNAMIC)
@given(st.integers(1, 2), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
@example(1, 1, 1)
@example(1, 1, 20)
@example(1, 20, 1)
def test_any_small_size_is_right(kernels, name, batch, rows, columns):
    rows, columns = sizes_of(name, rows, columns)
    compare(kernels, name, batch, rows, columns, contiguous=True)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(("name", "batch"), STATIC)
def test_static_sizes_are_right(kernels, name, batch, contiguous):
    compare(kernels, name, batch, *image_sizes(RECIPES[name]), contiguous=contiguous)


@pytest.mark.parametrize(("name", "rows", "columns"), [("3x3", 13, 19), ("static 1x1, residual", 5, 11)])
def test_a_residual_may_be_overwritten(kernels, name, rows, columns):
    made, rng = RECIPES[name], np.random.default_rng(0)
    window, channels, depth = Window.of(made), channels_of(made.operands[-1]), channels_of(made.operands[0])
    x = image(rng, 1, rows, columns, depth)
    weight = rng.standard_normal((channels, depth, *window.kernel)).astype(np.float32)
    output = rng.standard_normal((1, rows, columns, channels)).astype(np.float32)
    expected = np.maximum(convolve(x, weight, window) + output, 0)
    kernels[name](x, pack_convolution(weight, made), np.zeros(channels, np.float32), output, output)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-4)


def test_infinity_and_nan_reach_only_the_outputs_that_see_them(kernels):
    made = RECIPES["static"]
    x = np.zeros((1, 8, 8, 64), np.float32)
    x[0, 0, 0, 5], x[0, 7, 7, 5] = np.inf, np.nan
    weight = np.ones((64, 64, 3, 3), np.float32)
    output = run(kernels["static"], [x, pack_convolution(weight, made), np.zeros(64, np.float32)], (1, 8, 8, 64))
    assert np.all(np.isposinf(output[0, :2, :2])) and np.all(np.isnan(output[0, 6:, 6:]))
    output[0, :2, :2] = output[0, 6:, 6:] = 0
    assert not output.any()


def test_a_group_is_a_call_on_views(kernels):
    made, rng = RECIPES["1x1, stride 2"], np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 9, 32)).astype(np.float32)
    weight = rng.standard_normal((64, 16, 1, 1)).astype(np.float32)
    bias, output = np.zeros(32, np.float32), np.empty((2, 5, 5, 64), np.float32)
    for group in range(2):
        part = slice(32 * group, 32 * (group + 1))
        views = x[..., 16 * group : 16 * (group + 1)], pack_convolution(weight[part], made), bias, output[..., part]
        kernels["1x1, stride 2"](*views)
    expected = np.maximum(convolve(x, weight, Window.of(made), groups=2), 0)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_refusals():
    x = Operand("float32", (None, 8, 8, 4))
    with pytest.raises(ArgumentError, match="channels"):
        convolution_recipe(Operand("float32", (None, 8, 8, None)), 4, Window((3, 3)))
    with pytest.raises(ArgumentError, match="window"):
        convolution_recipe(x, 4, Window((3, 3), stride=(0, 1)))
    with pytest.raises(ArgumentError, match="weight"):
        pack_convolution(np.zeros((4, 4, 3, 2), np.float32), convolution_recipe(x, 4, Window((3, 3))))
