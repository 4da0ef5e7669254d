"""From what the user gave to what a job needs: the model's graph, its data and its metric, checked."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from taut.errors import ArgumentError, DataError
from taut.graph import Graph, bind_sizes
from taut.optimize._data import Dataset, check_inputs, load_data, match_labels, rows, synthesise
from taut.optimize._load import LoadedModel, as_loaded_model, capture_model, load_model
from taut.optimize._metrics import Metric, choose_metric
from taut.optimize._settings import Progress, Settings

_DEFAULT_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that the search needs, checked."""

    loaded: LoadedModel
    settings: Settings
    eager: Callable[..., Any]
    graph: Graph
    sizes: Mapping[str, int]
    dataset: Dataset
    metric: Metric
    warnings: tuple[str, ...]
    command: str | None


@contextlib.contextmanager
def restored(module: torch.nn.Module | torch.export.ExportedProgram) -> Iterator[None]:
    """Leave the thread count and the training flags as they were."""
    threads = torch.get_num_threads()
    flags = {part: part.training for part in module.modules()} if isinstance(module, torch.nn.Module) else {}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for part, training in flags.items():
            part.training = training


def load(model: Any, example_inputs: Any, dynamic_shapes: Any) -> LoadedModel:
    """The model with its example inputs, from either a module or what the command line takes."""
    if isinstance(model, str):
        loaded = load_model(model)
    else:
        if not isinstance(model, (torch.nn.Module, torch.export.ExportedProgram)):
            raise ArgumentError("model", model, expected="an nn.Module, an ExportedProgram, or path.py:factory")
        loaded = as_loaded_model(
            (model,), name=type(model).__name__.lower(), source=f"{type(model).__name__} given in Python"
        )
    if example_inputs is not None:
        inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
        loaded = dataclasses.replace(loaded, example_inputs=inputs)
    return loaded if dynamic_shapes is None else dataclasses.replace(loaded, dynamic_shapes=dynamic_shapes)


def prepare(
    loaded: LoadedModel,
    settings: Settings,
    *,
    data: str | Mapping[str, Any] | None,
    metric: str | Callable[..., float] | None,
    progress: Progress,
) -> Prepared:
    """Read the data, capture the graph, and check that they fit together."""
    warnings: list[str] = []
    if loaded.example_inputs is None and data is None:
        raise ArgumentError(
            "example_inputs",
            None,
            expected="example inputs or data",
            fix="let the factory return (module, example_inputs)",
        )
    progress("reading the data", 0.0)
    example = loaded.example_inputs
    batch_size = rows(example) if example else _DEFAULT_BATCH
    if data is None:
        assert example is not None
        dataset = synthesise(example)
        warnings.append(
            "No data was given: times and quality are those of random inputs. Give --data for figures that count."
        )
    else:
        dataset = match_labels(load_data(data, batch_size=batch_size), batch_size)
    if settings.goal == "energy":
        warnings.append("Energy is CPU time over all threads, a proxy: no energy counter is read.")
    chosen = choose_metric(metric, dataset.labels)
    if example is None:
        example = dataset.batches[0]
    progress("capturing the graph", 0.0)
    shapes = loaded.dynamic_shapes
    if shapes is None and isinstance(loaded.module, torch.nn.Module):
        shapes = dynamic_batch(example)
    if example and isinstance(example[0], torch.Tensor) and not example[0].numel():
        raise DataError(
            f"{loaded.source}: the example input has shape {tuple(example[0].shape)}", expected="at least one sample"
        )
    graph = capture_model(loaded, example, shapes)
    check_inputs(dataset, graph)
    loaded = dataclasses.replace(loaded, example_inputs=example)
    return Prepared(
        loaded,
        settings,
        _as_eager(loaded.module),
        graph,
        bind_sizes(graph, *example),
        dataset,
        chosen,
        tuple(warnings),
        _replay_command(loaded.source, data, metric, settings) if isinstance(loaded.module, torch.nn.Module) else None,
    )


def _replay_command(source: str, data: object, metric: object, settings: Settings) -> str | None:
    """The command that replays the recipe, where everything was given by name."""
    if ":" not in source or not isinstance(data, (str, type(None))) or not isinstance(metric, (str, type(None))):
        return None
    standard = Settings()
    goal = settings.goal if settings.goal != standard.goal else None
    drop = settings.limit.text if settings.limit != standard.limit else None
    given = (("--data", data), ("--metric", metric), ("--goal", goal), ("--max-drop", drop))
    options = [f"{option} {shlex.quote(value)}" for option, value in given if value]
    return " ".join(["taut optimize", shlex.quote(source), *options, "--recipe recipe.yaml"])


def dynamic_batch(example: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """First dimensions that equal the batch size are dynamic where the model allows it."""
    batch = rows(example) if example and isinstance(example[0], torch.Tensor) else 0
    if batch < 2:
        return None
    return tuple(
        {0: torch.export.Dim.AUTO}
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == batch
        else None
        for value in example
    )


def _as_eager(module: torch.nn.Module | torch.export.ExportedProgram) -> Callable[..., Any]:
    """The unmodified model as its user would run it: in evaluation mode, on its own."""
    if isinstance(module, torch.export.ExportedProgram):
        return module.module(check_guards=False)
    return module.eval()
