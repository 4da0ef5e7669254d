"""Operands as Halide sees them: dimensions run innermost first, start at 0, and sizes known ahead are constants."""

from __future__ import annotations

import halide as hl

from taut.codegen._recipe import Operand, Recipe

TYPES = {
    "float32": hl.Float(32),
    "bfloat16": hl.BFloat(16),
    "int64": hl.Int(64),
    "int32": hl.Int(32),
    "int8": hl.Int(8),
    "uint8": hl.UInt(8),
    "bool": hl.Bool(),
}


def wide_vectors() -> bool:
    """Whether the target has 32 registers of 16 float32 each, as AVX-512 has."""
    return hl.get_target_from_environment().natural_vector_size(hl.Float(32)) >= 16


def inputs(recipe: Recipe) -> list[hl.ImageParam]:
    """One parameter for each input of the recipe, constrained to what the operand says."""
    operands = recipe.operands[: len(recipe.operands) - recipe.outputs]
    parameters = []
    for number, operand in enumerate(operands):
        parameter = hl.ImageParam(TYPES[operand.dtype], len(operand.shape), f"operand{number}")
        constrain(parameter, operand)
        parameters.append(parameter)
    return parameters


def constrain(buffer: hl.OutputImageParam, operand: Operand) -> None:
    """Let a buffer start at 0, have the operand's static sizes, and any stride where it is not dense."""
    for dimension, size in enumerate(reversed(operand.shape)):
        buffer.dim(dimension).set_min(0)
        if size is not None:
            buffer.dim(dimension).set_extent(size)
    if operand.shape and not operand.dense:
        buffer.dim(0).set_stride(hl.Expr())


def extent(parameter: hl.OutputImageParam, operand: Operand, axis: int) -> hl.Expr:
    """The size of an operand along an axis counted from the outermost: a constant where it is static."""
    size = operand.shape[axis]
    return hl.i32(size) if size is not None else parameter.dim(len(operand.shape) - 1 - axis).extent()
