"""Kernels that compute the same in other tiles, for a model of costs to choose from."""

from __future__ import annotations

import dataclasses

from taut.codegen._convolution_window import CHANNEL_BLOCKS
from taut.codegen._linear import TILE_ROWS, VECTOR
from taut.codegen._recipe import Operand, Recipe


def tilings(recipe: Recipe) -> list[Recipe]:
    """The recipe, whose tile the analytic rule chose, then those with weights in blocks of other sizes.

    A block of weights is what a tile of the output needs of them, and it fixes how high the tile can be. The templates
    "linear" and "convolution" have such blocks; of others there is one tiling.
    """
    if recipe.template not in ("linear", "convolution"):
        return [recipe]
    channels = recipe.operands[-1].shape[-1] or 0
    sizes = [VECTOR * vectors for vectors in TILE_ROWS] if recipe.template == "linear" else CHANNEL_BLOCKS
    fitting = [size for size in sizes if size < channels + VECTOR] if channels > VECTOR else []
    return [recipe, *(with_block(recipe, size) for size in fitting if size != block_of(recipe))]


def block_of(recipe: Recipe) -> int:
    """How many columns or output channels a block of the recipe's weights has."""
    return recipe.operands[1].shape[-1] or 0


def with_block(recipe: Recipe, block: int) -> Recipe:
    """The recipe for weights in blocks of another size."""
    x, weights, *rest = recipe.operands
    channels = rest[-1].shape[-1] or 0
    blocked = Operand(weights.dtype, (-(-channels // block), *weights.shape[1:-1], block))
    parameters = {**recipe.parameters, "block": block} if "block" in recipe.parameters else recipe.parameters
    return dataclasses.replace(recipe, operands=(x, blocked, *rest), parameters=parameters)
