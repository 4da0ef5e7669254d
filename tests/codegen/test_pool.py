"""Generated pooling against torch."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pixel_reference import channels_of, image, outputs, padded, run

from taut.codegen._build import build
from taut.codegen._call import Kernel
from taut.codegen._convolution_window import Window
from taut.codegen._pool import average_pool_recipe, global_average_recipe, max_pool_recipe
from taut.codegen._recipe import Operand
from taut.errors import ArgumentError

PADDED = Window((3, 3), (2, 2), (1, 1, 1, 1))
CEILED = Window((3, 3), (2, 2), (1, 2, 1, 2))  # as ceil_mode pads some sizes


def image_of(channels, rows=None, columns=None):
    return Operand("float32", (None, rows, columns, channels))


RECIPES = {
    "max": max_pool_recipe(image_of(24), PADDED),
    "max, dilation 2": max_pool_recipe(
        image_of(64), Window((2, 3), padding=(1, 1, 1, 1), dilation=(2, 2)), expression=(("accumulator",), ("relu", 0))
    ),
    "max, 5x5": max_pool_recipe(image_of(40), Window((5, 5), padding=(2, 2, 2, 2))),
    "max of a static column": max_pool_recipe(image_of(20, 9, 1), PADDED),
    "max of a static row": max_pool_recipe(image_of(3, 1, 4), Window((1, 3), padding=(0, 0, 1, 1))),
    "average of a static row": average_pool_recipe(image_of(20, 1, 4), PADDED, counted=(1, 1, 1, 1)),
    "average of pixels": average_pool_recipe(image_of(16), PADDED),
    "average with padding": average_pool_recipe(image_of(40), PADDED, counted=(1, 1, 1, 1)),
    "average of pixels, ceiled": average_pool_recipe(image_of(5), CEILED),
    "average with padding, ceiled": average_pool_recipe(image_of(32), CEILED, counted=(1, 1, 1, 1)),
    "global": global_average_recipe(image_of(72)),
    "global, one vector": global_average_recipe(image_of(16)),
    "global, few channels": global_average_recipe(image_of(3)),
    "global, static": global_average_recipe(Operand("float32", (None, 7, 7, 1280))),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    built = build(RECIPES.values(), cache=tmp_path_factory.mktemp("cache"))
    assert not built.failed
    return {name: Kernel(built, recipe) for name, recipe in RECIPES.items()}


def largest(x, window):
    stacked = padded(x, window, -np.inf)
    rows, columns = ((window.kernel[axis] - 1) * window.dilation[axis] + 1 for axis in range(2))
    patches = stacked.unfold(2, rows, window.stride[0]).unfold(3, columns, window.stride[1])
    return patches[..., :: window.dilation[0], :: window.dilation[1]].amax((-2, -1)).permute(0, 2, 3, 1).numpy()


def mean(x, window, counted):
    """Sums over the window by the pixels that count in it."""
    top, bottom, left, right = counted
    counts = np.zeros((1, x.shape[1] + sum(window.padding[:2]), x.shape[2] + sum(window.padding[2:]), 1))
    rows = slice(window.padding[0] - top, window.padding[0] + x.shape[1] + bottom)
    columns = slice(window.padding[2] - left, window.padding[2] + x.shape[2] + right)
    counts[:, rows, columns] = 1
    total, count = (
        torch.nn.functional.avg_pool2d(values, window.kernel, window.stride)
        for values in (padded(x, window, 0.0), torch.from_numpy(counts).permute(0, 3, 1, 2))
    )
    return (total / count.clamp(min=1e-9)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("global")])
@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=25, deadline=None)
@example(1, 3, 3, False)
@example(1, 35, 70, True)
@example(1, 20, 1, True)
@example(1, 1, 20, True)
def test_any_size_is_right(kernels, name, batch, rows, columns, contiguous):
    made = RECIPES[name]
    static = made.operands[0].shape[1:3]
    rows, columns = (given if size is None else size for size, given in zip(static, (rows, columns), strict=True))
    window, channels = Window.of(made), channels_of(made.operands[-1])
    sizes = outputs(window, rows, columns)
    assume(min(sizes) > 0)
    x = image(np.random.default_rng(rows), batch, rows, columns, channels, contiguous=contiguous)
    output = run(kernels[name], [x], (batch, *sizes, channels))
    if name.startswith("max"):
        expected = largest(x, window)
        np.testing.assert_array_equal(output, np.maximum(expected, 0) if "dilation" in name else expected)
    else:
        counted = tuple(made.parameters[f"counted{side}"] for side in range(4))
        np.testing.assert_allclose(output, mean(x, window, counted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("counted", [False, True])
def test_ceil_mode_is_more_padding_at_the_end(kernels, size, counted):
    x = image(np.random.default_rng(size), 1, size, size, 32 if counted else 5)
    expected = torch.nn.functional.avg_pool2d(
        padded(x, Window((1, 1)), 0.0), 3, 2, 1, ceil_mode=True, count_include_pad=counted
    )
    name = "average with padding, ceiled" if counted else "average of pixels, ceiled"
    shape = tuple(expected.permute(0, 2, 3, 1).shape)
    np.testing.assert_allclose(run(kernels[name], [x], shape), expected.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("global")])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_global_average(kernels, name, batch):
    channels = channels_of(RECIPES[name].operands[0])
    for rows, columns in ((7, 7),) if "static" in name else ((1, 1), (3, 50), (32, 9)):
        x = image(np.random.default_rng(rows), batch, rows, columns, channels)
        output = run(kernels[name], [x], (batch, 1, 1, channels))
        expected = x.astype(np.float64).mean((1, 2), keepdims=True)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_nan_wins(kernels):
    x = np.full((1, 4, 4, 24), -np.inf, np.float32)
    x[0, 0, 0, 3], x[0, 0, 0, 4] = np.nan, -np.float32(np.nan)
    x[0, 1, 1, :5] = np.inf
    output = run(kernels["max"], [x], (1, 2, 2, 24))
    assert np.isnan(output[0, 0, 0, 3:5]).all() and np.isnan(output).sum() == 2
    assert np.isposinf(output[0, :, :, :3]).all()


def test_refusals():
    x = image_of(8)
    with pytest.raises(ArgumentError, match="channels"):
        max_pool_recipe(image_of(None), PADDED)
    with pytest.raises(ArgumentError, match="counted"):
        average_pool_recipe(x, PADDED, counted=(2, 0, 0, 0))
    with pytest.raises(ArgumentError, match="dilation"):
        average_pool_recipe(x, Window((2, 2), dilation=(2, 2)))
