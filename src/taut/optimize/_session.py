"""Running an optimised graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taut.compile import CompiledModel
from taut.cost import thread_count
from taut.errors import BuildError, KernelError, TautError
from taut.graph import Graph, Interpreter
from taut.optimize import _compiled
from taut.optimize._bundle import read_bundle
from taut.optimize._compiled import compile_graph, on_workers, without_compiling
from taut.optimize._recipe import Recipe
from taut.optimize._report import Report
from taut.stats import available_cores


class Session:
    """An optimised model: call it like the original.

    Attributes:
        graph: what runs.
        recipe: the passes that made it and its thread count.
        report: what was measured when it was made.
        program: the compiled program that runs in place of an interpreter of the graph, or None.
        note: why there is none, or none on several workers, although the recipe asks for one; empty otherwise.
    """

    def __init__(
        self, graph: Graph, recipe: Recipe, report: Report, program: CompiledModel | None = None, note: str = ""
    ) -> None:
        self.graph = graph
        self.recipe = recipe
        self.report = report
        self.program = program
        self.note = note
        self._run = Interpreter(graph) if program is None else program
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

    Where its recipe ends with the compiler, kernels are generated for this host, or taken from the cache; a host that
    cannot generate them interprets the graph, slower and with the same results, and `note` of the session says why.

    Args:
        path: the bundle's folder.

    Returns:
        The session; call it like the original model.

    Raises:
        ArtefactError: it is no bundle, or is truncated, tampered with or from a newer version.
    """
    graph, recipe, report = read_bundle(Path(path))
    options = without_compiling(recipe.passes)[1]
    if options is None:
        return Session(graph, recipe, report)
    missing = _compiled.missing_for_compiling()
    if missing:
        return Session(graph, recipe, report, note=f"interpreted, not compiled: {missing}")
    try:
        program = compile_graph(graph)
    except (BuildError, KernelError) as error:
        return Session(graph, recipe, report, note=f"interpreted, not compiled: {error.message}")
    try:
        return Session(graph, recipe, report, on_workers(program, options))
    except TautError as error:
        return Session(graph, recipe, report, program, note=f"on one worker: {error.message}")
