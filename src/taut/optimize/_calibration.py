"""Preparing weights with the user's calibration data before they are quantised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taut.errors import ArgumentError
from taut.graph import Graph, content_hash
from taut.optimize._data import Dataset, check_inputs, load_data, rows
from taut.optimize._planner import Steps
from taut.optimize._prepare import Prepared
from taut.optimize._recipe import Preparation
from taut.optimize._search import Search
from taut.transform import apply_recipe, calibratable_layers, calibrate, fine_tune

_FEW_BITS = 4


def check_steps(steps: int, calibration: object) -> None:
    """Refuse a number of fine-tuning steps that cannot be.

    Raises:
        ArgumentError: it is negative, or there is no calibration data.
    """
    if steps < 0:
        raise ArgumentError("--fine-tune", steps, expected="a number of steps from 1, or 0 for none")
    if steps and calibration is None:
        raise ArgumentError(
            "--fine-tune", steps, expected="calibration data to train on", fix="give inputs with --calibrate"
        )


def load_calibration(given: str | Mapping[str, Any], prepared: Prepared) -> Dataset:
    """Read calibration data, in the forms of `--data`; labels are not used.

    Raises:
        DataError: it does not have the form, or is not what the model takes.
    """
    example = prepared.loaded.example_inputs
    assert example is not None
    dataset = load_data(given, batch_size=rows(example), argument="--calibrate")
    check_inputs(dataset, prepared.graph)
    return dataset


def shared_batches(calibration: Dataset, scored: Dataset) -> str | None:
    """A warning where batches are in both, as quality is then that of data that was prepared for."""

    def hashes(dataset: Dataset) -> set[tuple[str, ...]]:
        return {tuple(content_hash(tensor) for tensor in batch) for batch in dataset.batches}

    same = len(hashes(calibration) & hashes(scored))
    if not same:
        return None
    return (
        f"{same} of {len(calibration.batches)} calibration batches are among those that quality is scored on, so the "
        "score may flatter the result: give --calibrate other samples."
    )


def uncalibrated(graph: Graph, options: Mapping[str, Any]) -> str | None:
    """A note where layers of few bits could have been calibrated and were not."""
    found = calibratable_layers(graph, **options)
    few = [path for path, form in found.items() if form.elements.bits <= _FEW_BITS]
    if not few:
        return None
    return (
        f"{len(few)} layer(s) of at most {_FEW_BITS} bits, such as {few[0]}, were rounded without data; with "
        "--calibrate they usually lose much less."
    )


def prepare_and_quantise(
    search: Search, first: Steps, options: Mapping[str, Any], calibration: Dataset, steps: int
) -> None:
    """Calibrate and fine-tune, and let the search adopt the quantised result after each, so that Ctrl-C keeps it.

    Args:
        search: its baseline is measured.
        first: the passes before.
        options: of the quantising pass.
        calibration: what to prepare with.
        steps: of fine-tuning.

    Raises:
        ArgumentError: data cannot improve any layer.
        DataError: the data does not fit.
    """
    folded, changes = apply_recipe(search.base, list(first))
    graph = folded
    done: tuple[Preparation, ...] = ()

    def adopt(prepared: tuple[Preparation, ...]) -> None:
        quantised, last = apply_recipe(graph, [("quantise", dict(options))])
        search.adopt(quantised, [*changes, *last], prepared=prepared)

    def tell(doing: str, _share: float) -> None:
        search.say(f"calibrating: {doing}" if doing != "fine-tuning" else doing)

    if calibratable_layers(graph, **options) or not steps:
        graph = calibrate(graph, calibration.batches, progress=tell, **options)
        done = ("calibrated",)
        adopt(done)
    if steps:
        tuned = fine_tune(graph, calibration.batches, reference=folded, steps=steps, progress=tell, **options)
        if tuned.after < tuned.before:
            graph = tuned.graph
            done = (*done, "fine-tuned")
        else:
            search.warnings.append(f"Fine-tuning for {steps} steps brought the outputs no closer, and was dropped.")
        adopt(done)


def sensitivity_data(calibration: Dataset | None, scored: Dataset) -> tuple[Dataset, Sequence[str]]:
    """What sensitivity is measured on, and what to say of it."""
    if calibration is not None:
        return calibration, ()
    return scored, (
        "The schemes of the layers were chosen by what the outputs lose on some of the samples that quality is scored "
        "on; their labels were not used.",
    )
