"""A model as one program that runs every shape."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from taut.codegen import Built, build_in_advance
from taut.compile._callable import CallableProgram, fallback_operators
from taut.compile._generate import Progress, generate, library_of
from taut.compile._prepare import prepare
from taut.compile._program import Lowered, lower
from taut.compile._small_sizes import serve_small_sizes
from taut.cost import CostModel
from taut.errors import ArgumentError
from taut.graph import Graph, InputChecker, capture
from taut.runtime import Session, load


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """How a model was compiled.

    Attributes:
        seconds: by stage: capture, lower, generate, load.
        failed: kernels that could not be generated and run on ATen instead: where they come from, and why.
        fallbacks: operators that run on ATen, with how often each occurs.
        kernels: how many different kernels were generated.
        transfers: how many tensors the program transfers between logical devices.
    """

    seconds: Mapping[str, float]
    failed: Mapping[str, str]
    fallbacks: Mapping[str, int]
    kernels: int
    transfers: int = 0


class CompiledModel(CallableProgram):
    """A compiled model, called like the original; it may be called from several threads at once.

    Attributes:
        graph: the graph that was compiled.
        lowered: the program, and what it was made from.
        report: how it was compiled.
        session: the native session behind it.
    """

    def __init__(self, graph: Graph, lowered: Lowered, session: Session, report: CompileReport) -> None:
        super().__init__(lowered.program, session, InputChecker(graph))
        self.graph = graph
        self.lowered = lowered
        self.report = report


def compile_model(
    model: torch.nn.Module | ExportedProgram | Graph,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    devices: Mapping[str, int] | None = None,
    tiles: CostModel | None = None,
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
        devices: the logical device, 0 or 1, that the kernels of a module run on, by the module's path; what lies inside
            goes with it. Everything else goes where least has to be transferred; arguments, results and what runs on
            ATen are on device 0. Today both devices are this host, with transfers that copy.
        tiles: predicts kernels in different tiles, as graphs of one node `taut.kernel.<template>` over x and the packed
            weights, whose last dimension is the block; the one predicted to take least is generated. By default an
            analytic rule decides.
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
    if tiles is not None and not callable(getattr(tiles, "predict", None)):
        raise ArgumentError("tiles", tiles, expected="a cost model with a method `predict`, or None")
    seconds: dict[str, float] = {}
    build_in_advance()
    with _timed(seconds, "capture"):
        graph = prepare(_captured(model, example_inputs, example_kwargs, dynamic_shapes))
    with _timed(seconds, "lower"):
        lowered = lower(graph, devices={} if devices is None else devices, tiles=tiles)
    with _timed(seconds, "generate"):
        lowered, built, failed = generate_all(graph, lowered, progress)
    with _timed(seconds, "load"):
        session = load(lowered.program, library_of(lowered.program, built)).session()
    fallbacks = fallback_operators(lowered.program)
    report = CompileReport(seconds, failed, fallbacks, len(lowered.recipes()), lowered.transfers)
    return CompiledModel(graph, lowered, session, report)


def generate_all(
    graph: Graph, lowered: Lowered, progress: Progress | None = None
) -> tuple[Lowered, Built, dict[str, str]]:
    """Generate a program's kernels; nodes whose kernels fail are lowered again to run on ATen.

    Returns:
        The program that all kernels exist for, these, and what failed: where it comes from, and why.
    """
    failed: dict[str, str] = {}
    built = generate(lowered.program, progress)
    while broken := built.failed.keys() & lowered.recipes().keys():
        failed |= {lowered.label_of(key): built.failed[key] for key in sorted(broken)}
        avoided = lowered.avoided | lowered.nodes_of(frozenset(broken))
        lowered = lower(graph, avoided, lowered.devices, lowered.tiles)
        built = generate(lowered.program, progress)
    return lowered, built, failed


def _captured(
    model: torch.nn.Module | ExportedProgram | Graph, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic: Any
) -> Graph:
    if isinstance(model, Graph):
        return model
    graph = capture(model, args, kwargs, dynamic_shapes=dynamic)
    return serve_small_sizes(graph, model, args, kwargs, dynamic) if isinstance(model, torch.nn.Module) else graph


class _timed:  # noqa: N801 - used like a function
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self.seconds, self.stage = seconds, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.stage] = time.perf_counter() - self.start
