"""Attention agrees with torch in double precision for every length, mask and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fenced import fenced, poisoned, untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from taut.codegen import Built, Operand, attention_recipe, build
from taut.codegen._call import Kernel
from taut.errors import ArgumentError

HEADS = 2
RECIPES = {
    "plain": attention_recipe(HEADS, 32),
    "scaled": attention_recipe(HEADS, 20, scale=0.1),
    "wide": attention_recipe(HEADS, 72),
    "odd": attention_recipe(HEADS, 3),
    "causal": attention_recipe(HEADS, 16, causal=True),
    "added": attention_recipe(HEADS, 16, mask=Operand("float32", (1, 1, None, None))),
    "bool": attention_recipe(HEADS, 16, mask=Operand("bool", (None, HEADS, 1, None))),
}
HEAD_SIZES = {"plain": 32, "scaled": 20, "wide": 72, "odd": 3}


@pytest.fixture(scope="module")
def built() -> Built:
    return build(RECIPES.values())


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(RECIPES)),
    st.integers(0, 3),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 2**31),
)
def test_attention(built: Built, name: str, batch: int, queries: int, keys: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = HEAD_SIZES.get(name, 16)

    def heads(length: int) -> np.ndarray:
        return generator.normal(size=(batch, length, HEADS, size)).astype(np.float32)

    q, k, v = heads(queries), heads(keys), heads(keys)
    masks: list[np.ndarray] = []
    options: dict[str, Any] = {"scale": 0.1} if name == "scaled" else {}
    if name == "causal":
        options["is_causal"] = True
    if name == "added":
        hidden = generator.random((1, 1, queries, keys)) < 0.3
        masks = [np.where(hidden, -np.inf, generator.normal(size=hidden.shape)).astype(np.float32)]
    if name == "bool":
        masks = [generator.random((batch, HEADS, 1, keys)) < 0.6]
    if masks:
        mask = torch.from_numpy(masks[0])
        options["attn_mask"] = mask if mask.dtype == torch.bool else mask.double()
    wide = [torch.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 1, 3))).double() for array in (q, k, v)]
    expected = (
        scaled_dot_product_attention(wide[0], wide[1], wide[2], **options).numpy() if keys else np.zeros(wide[0].shape)
    )
    around, fence = poisoned(np.zeros_like(q)), fenced(np.zeros_like(q))
    kernel = Kernel(built, RECIPES[name])
    for copy, output in [(poisoned, around), (fenced, fence)]:
        views = [array.transpose(0, 2, 1, 3) for array in (copy(q), copy(k), copy(v), output)]
        kernel(*views[:3], *[fenced(mask) for mask in masks], views[3])
    np.testing.assert_allclose(fence.transpose(0, 2, 1, 3), expected, rtol=1e-5, atol=5e-6)
    np.testing.assert_array_equal(around, fence)
    assert untouched(around)


def test_nan_reaches_its_row_only(built: Built) -> None:
    q, k, v = (np.random.default_rng(i).normal(size=(1, HEADS, 5, 32)).astype(np.float32) for i in range(3))
    q[0, 0, 3, 2] = np.nan
    output = np.zeros_like(q)
    Kernel(built, RECIPES["plain"])(q, k, v, output)
    assert np.isnan(output[0, 0, 3]).all()
    assert np.isnan(output).sum() == 32


def test_recipes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ArgumentError, match="heads"):
        attention_recipe(0, 8)
    with pytest.raises(ArgumentError, match="head_size"):
        attention_recipe(1, 0)
    with pytest.raises(ArgumentError, match="mask"):
        attention_recipe(2, 8, mask=Operand("float32", (1, 3, None, None)))
