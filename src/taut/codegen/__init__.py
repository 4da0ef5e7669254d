"""Kernels generated ahead of time by Halide: recipes, templates, building and caching. Imports no torch."""

from taut.codegen._recipe import Expression, Operand, Recipe

__all__ = ["Expression", "Operand", "Recipe"]
