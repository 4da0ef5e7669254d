"""Kernels generated ahead of time by Halide: recipes, templates, building and caching. Imports no torch."""

from taut.codegen._attention import attention_recipe
from taut.codegen._build import Built, build
from taut.codegen._linear import linear_recipe, pack_linear
from taut.codegen._map import map_recipe
from taut.codegen._matmul import matmul_recipe
from taut.codegen._recipe import Expression, Operand, Recipe

__all__ = [
    "Built",
    "Expression",
    "Operand",
    "Recipe",
    "attention_recipe",
    "build",
    "linear_recipe",
    "map_recipe",
    "matmul_recipe",
    "pack_linear",
]
