"""A model as one program that runs every shape."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from taut.codegen import Built, build
from taut.compile._prepare import prepare
from taut.compile._program import Lowered, lower
from taut.compile._small_sizes import serve_small_sizes
from taut.errors import ArgumentError
from taut.graph import Graph, InputChecker, Ref, Tree, capture
from taut.runtime import Session, SharedLibrary, load

Progress = Callable[[str, int, int], None]
"""Told the stage, what of it is done, and how much there is."""


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """How a model was compiled.

    Attributes:
        seconds: by stage: capture, lower, generate, load.
        failed: kernels that could not be generated and run on ATen instead: where they come from, and why.
        fallbacks: operators that run on ATen, with how often each occurs.
        kernels: how many different kernels were generated.
    """

    seconds: Mapping[str, float]
    failed: Mapping[str, str]
    fallbacks: Mapping[str, int]
    kernels: int


class CompiledModel:
    """A compiled model, called like the original; it may be called from several threads at once.

    Attributes:
        graph: the graph that was compiled.
        lowered: the program, and what it was made from.
        report: how it was compiled.
        session: the native session behind it.
    """

    def __init__(self, graph: Graph, lowered: Lowered, session: Session, report: CompileReport) -> None:
        self.graph = graph
        self.lowered = lowered
        self.session = session
        self.report = report
        self._checker = InputChecker(graph)
        self._single = isinstance(lowered.program.outputs, Ref)
        self._count = len(lowered.program.parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Args:
            args: the model's positional arguments; tensors with the dtypes of the captured inputs, of any sizes within
                the ranges that were given for its dynamic dimensions.
            kwargs: the model's keyword arguments.

        Returns:
            What the model returns, in memory of its own; an output class of its own becomes a dictionary.

        Raises:
            GuardError: if an input does not fit, or a run-time assertion of the model fails.
        """
        if kwargs or len(args) != self._count:
            args = tuple(self._checker.bind(args, kwargs))
        try:
            results = self.session(*args)
        except TypeError:
            results = self.session(*self._checker.bind(args, kwargs))
        return results[0] if self._single else _fill(self.lowered.program.outputs, results)


def compile_model(
    model: torch.nn.Module | ExportedProgram | Graph,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile a model to one program that runs every shape within the given ranges.

    Kernels are generated ahead of time, in parallel, and kept on this host under a hash of their content. What cannot
    be generated runs on ATen; `report` of the result says what that was, and why.

    Args:
        model: a module, a program that torch.export made, or a captured graph.
        example_inputs: positional arguments to trace it with; not used for a program or a graph.
        example_kwargs: keyword arguments to trace it with.
        dynamic_shapes: which dimensions may vary, in any form that torch.export takes.
        progress: called as kernels are generated.

    Returns:
        The compiled model.

    Raises:
        ExportError: if torch.export refuses the model.
        GraphError: if it needs what a program cannot express.
        ArgumentError: if an argument has a wrong kind.
        MissingExtraError: if the extra "compile" is not installed.

    Source: Shen et al., "Nimble: Efficiently Compiling Dynamic Neural Networks for Model Inference" (MLSys 2021).
    """
    if not isinstance(example_inputs, tuple):
        raise ArgumentError(
            "example_inputs", type(example_inputs).__name__, expected="a tuple of example inputs", fix="write (x,)"
        )
    seconds: dict[str, float] = {}
    with _timed(seconds, "capture"):
        graph = _captured(model, example_inputs, example_kwargs, dynamic_shapes)
    with _timed(seconds, "lower"):
        graph = prepare(graph)
        lowered = lower(graph)
    failed: dict[str, str] = {}
    with _timed(seconds, "generate"):
        built = _generate(lowered, progress)
        while built.failed:
            broken = frozenset(built.failed)
            failed |= {lowered.label_of(key): reason for key, reason in built.failed.items()}
            lowered = lower(graph, lowered.avoided | lowered.nodes_of(broken))
            built = _generate(lowered, progress)
    with _timed(seconds, "load"):
        session = load(lowered.program, _library(lowered, built)).session()
    kinds = [node.op for fallback in lowered.program.fallbacks for node in fallback.nodes if node.op != "input"]
    report = CompileReport(
        seconds, failed, {op: kinds.count(op) for op in dict.fromkeys(kinds)}, len(lowered.recipes())
    )
    return CompiledModel(graph, lowered, session, report)


def _captured(
    model: torch.nn.Module | ExportedProgram | Graph, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic: Any
) -> Graph:
    if isinstance(model, Graph):
        return model
    graph = capture(model, args, kwargs, dynamic_shapes=dynamic)
    return serve_small_sizes(graph, model, args, kwargs, dynamic) if isinstance(model, torch.nn.Module) else graph


def _generate(lowered: Lowered, progress: Progress | None) -> Built:
    recipes = list(lowered.recipes().values())
    inform = None if progress is None else lambda done, total: progress("generate", done, total)
    return build(recipes, progress=inform)


def _library(lowered: Lowered, built: Built) -> SharedLibrary | None:
    if built.path is None:
        return None
    kernels = enumerate(lowered.program.kernels)
    symbols = {number: built.symbols[kernel.recipe.key] for number, kernel in kernels if kernel.recipe is not None}
    return SharedLibrary(built.path, symbols)


class _timed:  # noqa: N801 - used like a function
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self.seconds, self.stage = seconds, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.stage] = time.perf_counter() - self.start


def _fill(tree: Tree, leaves: list[Any]) -> Any:
    """The structure with each position replaced by the value there."""
    if isinstance(tree, Ref):
        return leaves[tree.node]
    if isinstance(tree, tuple):
        return tuple(_fill(item, leaves) for item in tree)
    if isinstance(tree, list):
        return [_fill(item, leaves) for item in tree]
    if isinstance(tree, Mapping):
        return {key: _fill(item, leaves) for key, item in tree.items()}
    return tree
