"""Kernels for narrower vectors than the host's compute the same."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from taut.codegen import (
    Operand,
    Window,
    _build,
    attention_recipe,
    build,
    convolution_recipe,
    depthwise_recipe,
    linear_recipe,
    map_recipe,
    matmul_recipe,
    pack_convolution,
    pack_depthwise,
    pack_linear,
)
from taut.codegen._call import Kernel

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the narrower instruction set is that of x86-64")

AVX2 = "x86-64-linux-avx-avx2-f16c-fma-sse41"


def f32(*shape: int | None) -> Operand:
    return Operand("float32", shape)


LINEAR = linear_recipe(20, 90, (("accumulator",), ("tanh", 0)))
MATMUL = matmul_recipe(f32(None, None, None), f32(None, None, None), f32(None, None, None))
ATTENTION = attention_recipe(2, 24)
SOFTMAX = map_recipe(
    (("operand", 0), ("row_max", 0), ("sub", 0, 1), ("exp", 2), ("row_sum", 3), ("div", 3, 4)),
    [f32(None, None)],
    f32(None, None),
)
IMAGE = f32(None, 6, 7, 20)
DEPTHWISE = depthwise_recipe(
    IMAGE,
    Window((3, 3), padding=(1, 1, 1, 1)),
    beside=[IMAGE],
    before=(("operand", 0), ("operand", 1), ("add", 0, 1), ("relu", 2)),
)
POINTWISE = convolution_recipe(f32(None, 1, 13, 20), 78, Window((1, 1)))


def test_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [LINEAR, MATMUL, ATTENTION, SOFTMAX, DEPTHWISE, POINTWISE]
    wide = build(recipes)
    monkeypatch.setattr(_build, "host_target", lambda: AVX2)
    narrow = build(recipes)
    assert narrow.path != wide.path
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    for rows in (0, 1, 5, 8, 17):
        heads = [normal(1, 2, rows, 24) for _ in range(3)]
        images = [normal(rows, 6, 7, 20) for _ in range(2)]
        for recipe, inputs, output in [
            (LINEAR, [normal(rows, 20), pack_linear(normal(90, 20))], (rows, 90)),
            (MATMUL, [normal(2, rows, 9), normal(2, 9, 37)], (2, rows, 37)),
            (ATTENTION, heads, (1, 2, rows, 24)),
            (SOFTMAX, [normal(rows, 53)], (rows, 53)),
            (DEPTHWISE, [*images, pack_depthwise(normal(20, 1, 3, 3))], (rows, 6, 7, 20)),
            (
                POINTWISE,
                [normal(rows, 1, 13, 20), pack_convolution(normal(78, 20, 1, 1), POINTWISE)],
                (rows, 1, 13, 78),
            ),
        ]:
            results = [np.zeros(output, np.float32) for _ in range(2)]
            for built, result in zip((wide, narrow), results, strict=True):
                Kernel(built, recipe)(*inputs, result)
            np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)
