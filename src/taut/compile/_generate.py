"""The kernels of a program: generated, or taken from this host's cache."""

from __future__ import annotations

from collections.abc import Callable

from taut.codegen import Built, build
from taut.runtime import Program, SharedLibrary

Progress = Callable[[str, int, int], None]
"""Told the stage, what of it is done, and how much there is."""


def generate(program: Program, progress: Progress | None = None) -> Built:
    """A library with the kernels of the program's recipes.

    Args:
        program: what needs them.
        progress: called as kernels are generated.

    Raises:
        MissingExtraError: if the extra "compile" is not installed.
        BuildError: if there is no C++ compiler, or it could not link.
        StorageError: if the cache cannot be written.
    """
    recipes = {kernel.recipe.key: kernel.recipe for kernel in program.kernels if kernel.recipe is not None}
    inform = None if progress is None else lambda done, total: progress("generate", done, total)
    return build(list(recipes.values()), progress=inform)


def library_of(program: Program, built: Built) -> SharedLibrary | None:
    """The kernels by their numbers in the program; None where none is generated."""
    if built.path is None:
        return None
    kernels = enumerate(program.kernels)
    symbols = {number: built.symbols[kernel.recipe.key] for number, kernel in kernels if kernel.recipe is not None}
    return SharedLibrary(built.path, symbols)
