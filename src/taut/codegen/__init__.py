"""Kernels generated ahead of time by Halide: recipes, templates, building and caching. Imports no torch."""

from taut.codegen._attention import attention_recipe
from taut.codegen._build import Built, build, build_in_advance, find_compiler
from taut.codegen._convolution import convolution_recipe, pack_convolution
from taut.codegen._convolution_window import Window
from taut.codegen._depthwise import depthwise_recipe, pack_depthwise
from taut.codegen._linear import linear_recipe, pack_linear
from taut.codegen._map import map_recipe
from taut.codegen._matmul import matmul_recipe
from taut.codegen._pool import average_pool_recipe, global_average_recipe, max_pool_recipe
from taut.codegen._recipe import Expression, Operand, Recipe, is_heavy
from taut.codegen._tilings import block_of, tilings, with_block

__all__ = [
    "Built",
    "Expression",
    "Operand",
    "Recipe",
    "Window",
    "attention_recipe",
    "average_pool_recipe",
    "block_of",
    "build",
    "build_in_advance",
    "convolution_recipe",
    "depthwise_recipe",
    "find_compiler",
    "global_average_recipe",
    "is_heavy",
    "linear_recipe",
    "map_recipe",
    "matmul_recipe",
    "max_pool_recipe",
    "pack_convolution",
    "pack_depthwise",
    "pack_linear",
    "tilings",
    "with_block",
]
