"""Running an optimised graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taut.cost import thread_count
from taut.graph import Graph, Interpreter
from taut.optimize._bundle import read_bundle
from taut.optimize._recipe import Recipe
from taut.optimize._report import Report
from taut.stats import available_cores


class Session:
    """An optimised model: call it like the original.

    Attributes:
        graph: what runs.
        recipe: the passes that made it and its thread count.
        report: what was measured when it was made.
    """

    def __init__(self, graph: Graph, recipe: Recipe, report: Report) -> None:
        self.graph = graph
        self.recipe = recipe
        self.report = report
        self._run = Interpreter(graph)
        self._threads = min(recipe.threads, available_cores())  # it may have been made on a larger host

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """Run on inputs of the original model's signature.

        Raises:
            GuardError: an input's type or shape is outside what the graph was captured for.
        """
        with thread_count(self._threads):
            return self._run(*inputs, **keywords)


def load(path: str | Path) -> Session:
    """Load a bundle written by `taut optimize`.

    Args:
        path: the bundle's folder.

    Returns:
        The session; call it like the original model.

    Raises:
        ArtefactError: it is no bundle, or is truncated, tampered with or from a newer version.
    """
    return Session(*read_bundle(Path(path)))
