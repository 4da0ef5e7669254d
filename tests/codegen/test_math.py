"""Elementary functions: their error in units of the last place, and what becomes of NaN, infinity and zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taut.codegen import Built, Operand, build, map_recipe
from taut.codegen._call import Kernel

# name: reference, units of the last place (None: error relative to the argument instead), range of the arguments
FUNCTIONS = {
    "exp": (torch.exp, 4, 87.0),
    "log": (torch.log, 3, 1e30),
    "tanh": (torch.tanh, 3, 20.0),
    "sigmoid": (torch.sigmoid, 4, 80.0),
    "erf": (torch.erf, 4, 6.0),
    "gelu": (torch.nn.functional.gelu, None, 50.0),
    "gelu_tanh": (lambda x: torch.nn.functional.gelu(x, approximate="tanh"), None, 50.0),
    "silu": (torch.nn.functional.silu, 5, 80.0),
    "relu": (torch.relu, 0, 1e30),
    "sqrt": (torch.sqrt, 1, 1e30),
    "rsqrt": (torch.rsqrt, 2, 1e30),
    "reciprocal": (torch.reciprocal, 1, 1e30),
    "floor": (torch.floor, 0, 1e5),
    "ceil": (torch.ceil, 0, 1e5),
    "round": (torch.round, 0, 1e5),
    "sign": (torch.sign, 0, 1.0),
    "neg": (torch.neg, 0, 1.0),
    "abs": (torch.abs, 0, 1.0),
}
BINARY = {
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "div": torch.div,
    "pow": torch.pow,
    "remainder": torch.remainder,
}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan, 200.0, -200.0], np.float32)
ROW = Operand("float32", (None,))
RECIPES = {name: map_recipe((("operand", 0), (name, 0)), [ROW], ROW) for name in (*FUNCTIONS, "sin", "cos")}
RECIPES |= {name: map_recipe((("operand", 0), ("operand", 1), (name, 0, 1)), [ROW, ROW], ROW) for name in BINARY}


@pytest.fixture(scope="module")
def built() -> Built:
    return build(RECIPES.values())


def run(built: Built, name: str, *inputs: np.ndarray) -> np.ndarray:
    output = np.empty_like(inputs[0])
    Kernel(built, RECIPES[name])(*inputs, output)
    return output


def arguments(name: str, limit: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    magnitude = np.exp(generator.uniform(np.log(1e-6), np.log(limit), 50_000))
    positive = name in ("log", "sqrt", "rsqrt")
    return (magnitude * (1 if positive else generator.choice([-1, 1], magnitude.size))).astype(np.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error(built: Built, name: str) -> None:
    reference, units, limit = FUNCTIONS[name]
    x = arguments(name, limit)
    exact = reference(torch.from_numpy(x).double()).numpy()
    error = np.abs(run(built, name, x) - exact)
    if units is None:
        assert (error <= 5e-7 * np.abs(x)).all()
    else:
        assert (error <= units * np.spacing(np.abs(exact).astype(np.float32))).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_trigonometry(built: Built, name: str) -> None:
    x = np.linspace(-2000, 2000, 50_001, dtype=np.float32)
    np.testing.assert_allclose(run(built, name, x), getattr(np, name)(x.astype(np.float64)), atol=2e-7)
    assert np.isnan(run(built, name, SPECIAL[4:8])).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(built: Built, name: str) -> None:
    expected = FUNCTIONS[name][0](torch.from_numpy(SPECIAL)).numpy()
    if name == "gelu":
        expected[4] = np.inf  # where torch's vector code gives NaN
    np.testing.assert_allclose(run(built, name, SPECIAL), expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(built: Built, name: str) -> None:
    generator = np.random.default_rng(1)
    a, b = (generator.normal(size=10_000).astype(np.float32) for _ in range(2))
    a[:3], b[1:5] = np.nan, np.nan
    if name == "pow":
        a = np.abs(a)
        a[3:50], b[3:50] = -2.0, generator.integers(-5, 5, 47)
        a[0], b[0] = 0.0, 0.0
    if name == "remainder":
        b[np.abs(b) < 1e-2] = 1.0
    with np.errstate(invalid="ignore"):
        expected = BINARY[name](torch.from_numpy(a).double(), torch.from_numpy(b).double()).numpy()
    np.testing.assert_allclose(run(built, name, a, b), expected, rtol=2e-6, atol=1e-6)
