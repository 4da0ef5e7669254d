"""Generated depthwise convolutions against torch in float64."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pixel_reference import channels_of, convolve, guarded, image, outputs, run

from taut.codegen._build import build
from taut.codegen._call import Kernel
from taut.codegen._convolution_window import Window
from taut.codegen._depthwise import depthwise_recipe, inputs_before, pack_depthwise
from taut.codegen._recipe import Operand
from taut.errors import ArgumentError

BIAS_RELU6 = (("accumulator",), ("operand", 2), ("add", 0, 1), ("relu", 2), ("constant", 6.0), ("minimum", 3, 4))
RESIDUAL = (("accumulator",), ("operand", 3), ("add", 0, 1))

# relu(x + y * scale) + 1, so that what lies around the image differs from what the expression gives there.
BEFORE = (
    *(("operand", 0), ("operand", 1), ("operand", 2), ("mul", 1, 2), ("add", 0, 3), ("relu", 4)),
    *(("constant", 1.0), ("add", 5, 6)),
)


def recipe(channels, window, *, rows=None, columns=None, residual=False, before=False):
    x = Operand("float32", (None, rows, columns, channels))
    extras = [Operand("float32", (channels,))]
    if residual:
        extras.append(Operand("float32", (None, None, None, channels)))
    beside = (x, Operand("float32", (1, 1, 1, channels))) if before else ()
    expression = RESIDUAL if residual else BIAS_RELU6
    return depthwise_recipe(
        x,
        window,
        beside=beside,
        before=BEFORE if before else (),
        extras=extras,
        expression=tuple(
            (name, *(number + len(beside) for number in numbers)) if name == "operand" else (name, *numbers)
            for name, *numbers in expression
        ),
    )


RECIPES = {
    "3x3": recipe(32, Window((3, 3), padding=(1, 1, 1, 1))),
    "3x3, stride 2, channels that fill no vector": recipe(40, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    "5x5, residual": recipe(24, Window((5, 5), padding=(2, 2, 2, 2)), residual=True),
    "5x5, stride 2": recipe(72, Window((5, 5), (2, 2), (2, 2, 2, 2))),
    "dilation 2, few channels": recipe(5, Window((3, 3), padding=(2, 2, 2, 2), dilation=(2, 2))),
    "uneven": recipe(16, Window((2, 3), (2, 1), (0, 1, 2, 0))),
    "static column": recipe(20, Window((5, 5), padding=(2, 2, 2, 2)), rows=9, columns=1),
    "static row, residual": recipe(3, Window((1, 3), (1, 2), (0, 0, 1, 1)), rows=1, columns=4, residual=True),
    "static pixel": recipe(32, Window((3, 3), padding=(1, 1, 1, 1)), rows=1, columns=1),
    "static": recipe(144, Window((3, 3), padding=(1, 1, 1, 1)), rows=7, columns=14),
    "static before, stride 2, residual": recipe(
        24, Window((3, 3), (2, 2), (1, 1, 1, 1)), rows=12, columns=17, residual=True, before=True
    ),
    "static before, 5x5, few channels": recipe(
        5, Window((5, 5), padding=(2, 2, 2, 2)), rows=1, columns=20, before=True
    ),
    "static before, uneven, dilation": recipe(
        16, Window((2, 3), (2, 1), (0, 1, 2, 0), (2, 3)), rows=9, columns=10, before=True
    ),
    "static before": recipe(78, Window((3, 3), padding=(1, 1, 1, 1)), rows=14, columns=14, before=True),
    "static before, residual": recipe(
        78, Window((3, 3), padding=(1, 1, 1, 1)), rows=14, columns=14, residual=True, before=True
    ),
    "static before, blocks of channels": recipe(
        200, Window((5, 5), padding=(2, 2, 2, 2)), rows=9, columns=20, before=True
    ),
    "static before, blocks of channels, residual": recipe(
        100, Window((5, 5), padding=(2, 2, 2, 2)), rows=9, columns=20, residual=True, before=True
    ),
    "static before, strips": recipe(20, Window((3, 3), padding=(1, 1, 1, 1)), rows=3, columns=150, before=True),
    "static before, large window": recipe(4, Window((129, 3), padding=(64, 64, 1, 1)), rows=9, columns=20, before=True),
    "static before, rows between the windows": recipe(20, Window((2, 1), (4, 3)), rows=18, columns=13, before=True),
    "static before, row": recipe(8, Window((1, 3), padding=(0, 0, 1, 1)), rows=1, columns=5, before=True),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    built = build(RECIPES.values(), cache=tmp_path_factory.mktemp("cache"))
    assert not built.failed
    return {name: Kernel(built, recipe) for name, recipe in RECIPES.items()}


def compare(kernels, name, batch, rows, columns, *, contiguous=False):
    made = RECIPES[name]
    window, channels = Window.of(made), channels_of(made.operands[-1])
    rng = np.random.default_rng(batch * 10000 + rows * 100 + columns)
    shape = (batch, *outputs(window, rows, columns), channels)
    inputs = [image(rng, batch, rows, columns, channels, contiguous=contiguous)]
    seen = inputs[0]
    if inputs_before(made)[1]:
        inputs += [image(rng, *inputs[0].shape), image(rng, 1, 1, 1, channels, contiguous=True)]
        seen = np.maximum(inputs[0] + inputs[1] * inputs[2], 0) + 1
    weight = rng.standard_normal((channels, 1, *window.kernel)).astype(np.float32)
    bias = image(rng, channels, contiguous=True)
    residual = [image(rng, *shape, contiguous=contiguous)] if "residual" in name else []
    output = run(kernels[name], [*inputs, guarded(pack_depthwise(weight)), bias, *residual], shape)
    sums = convolve(seen, weight, window, groups=channels)
    expected = sums + residual[0] if residual else np.clip(sums + bias, 0, 6)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("static")])
@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=25, deadline=None)
@example(1, 3, 3, False)
@example(1, 35, 70, True)
@example(1, 20, 1, True)
@example(1, 1, 20, True)
def test_any_size_is_right(kernels, name, batch, rows, columns, contiguous):
    window = Window.of(RECIPES[name])
    assume(min(outputs(window, rows, columns)) > 0)
    compare(kernels, name, batch, rows, columns, contiguous=contiguous)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("static")])
def test_static_sizes_are_right(kernels, name, batch):
    compare(kernels, name, batch, *RECIPES[name].operands[0].shape[1:3])


def test_a_residual_may_be_overwritten(kernels):
    rng = np.random.default_rng(0)
    x, weight = image(rng, 1, 9, 9, 24), rng.standard_normal((24, 1, 5, 5)).astype(np.float32)
    output = rng.standard_normal((1, 9, 9, 24)).astype(np.float32)
    made = RECIPES["5x5, residual"]
    expected = convolve(x, weight, Window.of(made), groups=24) + output
    kernels["5x5, residual"](x, pack_depthwise(weight), np.zeros(24, np.float32), output, output)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_refusals():
    with pytest.raises(ArgumentError, match="channels"):
        depthwise_recipe(Operand("float32", (None, 8, 8, None)), Window((3, 3)))
    known, unknown = Operand("float32", (None, 8, 8, 4)), Operand("float32", (None, None, 8, 4))
    with pytest.raises(ArgumentError, match="beside"):
        depthwise_recipe(known, Window((3, 3)), beside=[known])
    with pytest.raises(ArgumentError, match="static height and width"):
        depthwise_recipe(unknown, Window((3, 3)), before=(("operand", 0), ("relu", 0)))
    with pytest.raises(ArgumentError, match="weight"):
        pack_depthwise(np.zeros((8, 2, 3, 3), np.float32))
