"""Tiles chosen by a model of costs in place of the analytic rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taut.codegen import Recipe, tilings
from taut.cost import CostModel
from taut.graph import Builder, Graph, TensorType

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8, "uint8": torch.uint8}


def choose_tiling(recipe: Recipe, x: Sequence[int], output: Sequence[int], model: CostModel) -> Recipe:
    """The tiling of a kernel that the model predicts to take least; the analytic rule's where it sees no difference.

    Args:
        recipe: with the tile of the analytic rule, without an epilogue.
        x: typical sizes of its first operand.
        output: typical sizes of its output.
        model: predicts graphs as `kernel_graph` makes them, on one thread.
    """

    def seconds(candidate: Recipe) -> float:
        return model.predict(kernel_graph(candidate, x, output), {}, threads=1).total

    candidates = tilings(recipe)
    return min(candidates, key=seconds) if len(candidates) > 1 else recipe


def kernel_graph(recipe: Recipe, x: Sequence[int], output: Sequence[int]) -> Graph:
    """A kernel as a graph of one node, as a model of costs takes it.

    The node is called `taut.kernel.<template>`. Its arguments are x and the packed weights, whose shape tells the tile:
    the last dimension is the block of columns or channels. Its keywords are the parameters of the recipe.

    Args:
        recipe: of a template with weights.
        x: sizes of the first operand.
        output: sizes of the output.
    """
    first, weights, *_, last = recipe.operands
    builder = Builder()
    inputs = [
        builder.input(name, TensorType(tuple(size or 0 for size in sizes), _DTYPES[dtype]))
        for name, sizes, dtype in (("x", x, first.dtype), ("weights", weights.shape, weights.dtype))
    ]
    made = TensorType(tuple(output), _DTYPES[last.dtype])
    parameters = dict(sorted(recipe.parameters.items()))
    node = builder.add(f"taut.kernel.{recipe.template}", *inputs, outputs=made, kwargs=parameters)
    return builder.finish((node,))
