"""Which module generates the pipeline of a template; only the workers import those modules, and with them Halide."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from taut.errors import ArgumentError

if TYPE_CHECKING:
    import halide as hl

    from taut.codegen._recipe import Recipe

MODULES = {
    "attention": "taut.codegen._attention_pipeline",
    "convolution": "taut.codegen._convolution_pipeline",
    "depthwise": "taut.codegen._depthwise_pipeline",
    "linear": "taut.codegen._linear_pipeline",
    "map": "taut.codegen._map_pipeline",
    "matmul": "taut.codegen._matmul_pipeline",
    "pool": "taut.codegen._pool_pipeline",
}


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """The Halide pipeline of a recipe, and its inputs in the order of the operands.

    Each module of a template offers `pipeline(recipe)` with this signature. Its inputs come from
    `taut.codegen._buffers.inputs`; the outputs follow the inputs in the order of the kernel's arguments.

    Raises:
        ArgumentError: there is no such template, or the recipe asks for what the template does not do.
    """
    if recipe.template not in MODULES:
        raise ArgumentError("template", recipe.template, expected=f"one of {', '.join(sorted(MODULES))}")
    return importlib.import_module(MODULES[recipe.template]).pipeline(recipe)
