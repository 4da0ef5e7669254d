"""How often compression pays over many set-ups: a recipe beside this file, answered by the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taut.distributed import _compressors
from taut.distributed._compressor import Compressor
from taut.distributed._step_time import Cluster, EncodeCost, step_seconds
from taut.distributed._workload import Workload, even_workload
from taut.errors import ArtefactError
from taut.hardware import FORMS, GOODPUT, LinkModel

RECIPE = Path(__file__).with_name("communication_study.json")


@dataclass(frozen=True, slots=True)
class SetUp:
    """One cell of the study; its figures are modelled.

    Attributes:
        model: name.
        batch: of each worker.
        workers: ranks, one a host.
        bandwidth: of each link in bytes per second.
        compressor: its name in the recipe.
        seconds: of a step with it.
        baseline: seconds with the faster of fp32 and fp16.
    """

    model: str
    batch: int
    workers: int
    bandwidth: float
    compressor: str
    seconds: float
    baseline: float

    @property
    def helps(self) -> bool:
        """Whether the compressor is faster."""
        return self.seconds < self.baseline


def run_study(path: Path = RECIPE) -> list[SetUp]:
    """Every set-up of a recipe.

    Args:
        path: JSON; the one beside this file says what it has to hold.

    Raises:
        ArtefactError: it cannot be read, or lacks something.
    """
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        return list(_set_ups(recipe))
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ArtefactError(f"{path}: no recipe of a study ({error!r})", expected=f"a file like {RECIPE}") from error


def _set_ups(recipe: Mapping[str, Any]) -> Iterator[SetUp]:
    coefficients = np.array([[0.0, recipe["latency_seconds"], 0.0, 1 / GOODPUT]])
    links = LinkModel(dict.fromkeys(FORMS, coefficients), dict.fromkeys(FORMS, np.ones(1)))
    methods = [_method(one, recipe["encoded_elements"]) for one in recipe["compressors"]]
    nothing = EncodeCost(np.zeros((1, 3)))
    for model in recipe["models"]:
        shapes = _shapes(model)
        for batch in recipe["batches"]:
            workload = even_workload(model["name"], shapes, model["backward_seconds"] * batch / model["batch"])
            for workers in recipe["workers"]:
                for gigabits in recipe["bandwidths_gbit"]:
                    cluster = Cluster(workers, gigabits * 1e9 / 8)
                    baseline = min(
                        _seconds(workload, one, nothing, cluster, links)
                        for one in (_compressors.NoCompression(), _compressors.Float16())
                    )
                    for name, compressor, cost in methods:
                        seconds = _seconds(workload, compressor, cost, cluster, links)
                        bandwidth = gigabits * 1e9 / 8
                        yield SetUp(model["name"], batch, workers, bandwidth, name, seconds, baseline)


def _seconds(workload: Workload, compressor: Compressor, cost: EncodeCost, cluster: Cluster, links: LinkModel) -> float:
    return float(step_seconds(workload, compressor, cost, cluster, links)[0])


def _method(described: Mapping[str, Any], elements: float) -> tuple[str, Compressor, EncodeCost]:
    settings = {name: value for name, value in described.items() if name not in ("name", "kind", "seconds")}
    compressor = getattr(_compressors, described["kind"])(**settings)
    return described["name"], compressor, EncodeCost(np.array([[0.0, described["seconds"] / elements, 0.0]]))


def _shapes(model: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Of the parameters, in the order of the forward pass."""
    if "resnet_blocks" in model:
        return list(_resnet(model["resnet_blocks"]))
    return list(_transformer(**model["transformer"]))


def _resnet(blocks: list[int]) -> Iterator[tuple[int, ...]]:
    """A bottleneck residual network for images of 1000 classes; each convolution with its two batch-norm vectors."""

    def convolution(out: int, into: int, size: int) -> Iterator[tuple[int, ...]]:
        yield out, into, size, size
        yield (out,)
        yield (out,)

    yield from convolution(64, 3, 7)
    into = 64
    for stage, count in enumerate(blocks):
        inner = 64 * 2**stage
        for block in range(count):
            yield from convolution(inner, into, 1)
            yield from convolution(inner, inner, 3)
            yield from convolution(4 * inner, inner, 1)
            if block == 0:
                yield from convolution(4 * inner, into, 1)
            into = 4 * inner
    yield 1000, into
    yield (1000,)


def _transformer(layers: int, width: int, inner: int, vocabulary: int) -> Iterator[tuple[int, ...]]:
    """An encoder with 512 positions."""
    yield vocabulary, width
    yield 512, width
    for _ in range(layers):
        for out, into in ((width, width),) * 4 + ((inner, width), (width, inner)):
            yield out, into
            yield (out,)
        for _ in range(4):
            yield (width,)
