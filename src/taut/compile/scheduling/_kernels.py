"""Kernels of programs and of their parts, each generated once, and sessions that run them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from taut.codegen import Built, Recipe, build
from taut.compile._program import Lowered
from taut.errors import BuildError
from taut.runtime import Session, SharedLibrary, load


class Kernels:
    """Generated kernels, in a library for each call that needed new ones.

    Attributes:
        seconds: that generating them took so far.
    """

    def __init__(self) -> None:
        self._built: dict[str, Built] = {}
        self._failed: dict[str, str] = {}
        self.seconds = 0.0

    def add(self, recipes: Mapping[str, Recipe]) -> None:
        """Generate those that are missing and did not fail before.

        Args:
            recipes: by key.

        Raises:
            MissingExtraError, BuildError, StorageError: as `taut.codegen.build` does.
        """
        missing = [recipe for key, recipe in recipes.items() if key not in self._built and key not in self._failed]
        if missing:
            began = time.perf_counter()
            built = build(missing)
            self._built |= dict.fromkeys(built.symbols, built)
            self._failed |= built.failed
            self.seconds += time.perf_counter() - began

    def has(self, recipes: Mapping[str, Recipe]) -> bool:
        """Whether all of these were generated."""
        return recipes.keys() <= self._built.keys()

    def session(self, lowered: Lowered) -> Session:
        """A session of a program; kernels that it lacks are generated.

        Raises:
            BuildError: one could not be generated.
        """
        self.add(lowered.recipes())
        failed = self._failed.keys() & lowered.recipes().keys()
        if failed:
            raise BuildError(f"{len(failed)} kernels could not be generated: {self._failed[min(failed)]}")
        recipes = enumerate(kernel.recipe for kernel in lowered.program.kernels)
        addresses = {number: self._address(recipe.key) for number, recipe in recipes if recipe is not None}
        return load(lowered.program, _Addresses(addresses)).session()

    def _address(self, key: str) -> int:
        built = self._built[key]
        assert built.path is not None
        return SharedLibrary(built.path, [built.symbols[key]]).address(0)


@dataclasses.dataclass(frozen=True)
class _Addresses:
    """Kernels by their numbers in a program."""

    known: Mapping[int, int]

    def address(self, kernel: int) -> int:
        return self.known[kernel]
