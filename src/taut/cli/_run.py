"""`taut run`: run a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taut._files import check_new, write_whole
from taut.errors import ArgumentError

if TYPE_CHECKING:
    from taut.optimize import Dataset, Session


def run(
    bundle: Annotated[Path, typer.Argument(help="A folder written by taut optimize.")],
    data: Annotated[str | None, typer.Option(help="As for optimize; random inputs without it.")] = None,
    metric: Annotated[str | None, typer.Option(help="Score the outputs against the data's labels.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a batch where the data does not say.")] = 32,
    output: Annotated[Path | None, typer.Option(help="Write the outputs to this new .npz file.")] = None,
) -> None:
    """Run a bundle on data, and print the time of a batch and, with a metric, the score."""
    import statistics
    import time

    import numpy as np

    from taut.cli._terminal import results
    from taut.optimize import check_inputs, choose_metric, first_tensor, load, load_data, match_labels

    if output is not None:
        if output.suffix != ".npz":
            raise ArgumentError("--output", str(output), expected="a .npz file")
        check_new(output, "--output")
    session = load(bundle)
    dataset = _random_inputs(session, batch_size) if data is None else load_data(data, batch_size=batch_size)
    dataset = match_labels(dataset, batch_size)
    check_inputs(dataset, session.graph)
    chosen = None if metric is None else choose_metric(metric, dataset.labels)
    outputs, seconds = [], []
    session(*dataset.batches[0])
    for batch in dataset.batches:
        started = time.perf_counter()
        made = session(*batch)
        seconds.append(time.perf_counter() - started)
        outputs.append(first_tensor(made).float().cpu().numpy())
    console = results()
    console.print(
        f"{dataset.samples} samples in {len(dataset.batches)} batches ({dataset.source}): median "
        f"{statistics.median(seconds) * 1e3:.3f} ms a batch on {session.recipe.threads} thread(s)",
        soft_wrap=True,
        markup=False,
    )
    if session.note:
        console.print(session.note, markup=False, soft_wrap=True)
    if chosen is not None and dataset.labels is not None:
        score = chosen.score(np.concatenate(outputs), dataset.labels.numpy())
        console.print(f"{chosen.name}: {score:.6g}", markup=False)
    if output is not None:
        named = {f"output_{index}": made for index, made in enumerate(outputs)}
        write_whole(output, lambda path: np.savez(path, **named))
        console.print(f"outputs: {output}", markup=False)


def _random_inputs(session: Session, batch_size: int) -> Dataset:
    import torch

    from taut.graph import TensorType
    from taut.optimize import synthesise

    examples = []
    for index in session.graph.inputs:
        declared = session.graph.nodes[index].outputs[0]
        if isinstance(declared, TensorType):
            shape = [size if isinstance(size, int) else _inside(session, size, batch_size) for size in declared.shape]
            floating = declared.dtype.is_floating_point
            examples.append(
                torch.randn(shape).to(declared.dtype) if floating else torch.ones(shape, dtype=declared.dtype)
            )
    return synthesise(examples)


def _inside(session: Session, size: object, wanted: int) -> int:
    declared = session.graph.symbols.get(str(size))
    if declared is None:
        return wanted
    return max(declared.lower, min(wanted, declared.upper if declared.upper is not None else wanted))
