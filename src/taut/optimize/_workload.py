"""What one timed call is: a pass over real batches in their real proportions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch

from taut.errors import DataError, TautError
from taut.optimize._data import Batch, Dataset, spread
from taut.stats import Arm

_PASS_SECONDS = 0.15
_LONGEST_PASS, _PASSES = 2.0, 500
_FEWEST_BATCHES, _MOST_BATCHES = 4, 64


@dataclasses.dataclass(frozen=True)
class Workload:
    """The batches that a timed call runs, spread evenly over the data."""

    batches: tuple[Batch, ...]

    def arm(self, model: Callable[..., Any], threads: int, name: str) -> Arm:
        """The model on these batches with that many threads, ready for `taut.stats.compare`."""
        batches = self.batches

        def run() -> None:
            with torch.inference_mode():
                for batch in batches:
                    model(*batch)

        return Arm(run, name=name, prepare=lambda: torch.set_num_threads(threads))


def seconds_per_batch(dataset: Dataset, model: Callable[..., Any]) -> float:
    """Roughly what the model takes for a batch: the best of three passes over a few, spread over the data.

    Raises:
        DataError: the model raised on the user's data.
    """
    probe = [dataset.batches[index] for index in spread(dataset.batches, 8)]
    passes = []
    with torch.inference_mode():
        for _ in range(3):  # the first pass sets up memory and kernels for each shape
            started = time.perf_counter()
            for batch in probe:
                _run(model, batch, dataset.source)
            passes.append(time.perf_counter() - started)
    return max(min(passes) / len(probe), 1e-6)


def choose_workload(dataset: Dataset, seconds: float, *, budget: float) -> Workload:
    """As many evenly spaced batches as the model runs in about 150 ms; at least four, unless these take long.

    Args:
        dataset: the user's batches.
        seconds: what the model takes for one.
        budget: seconds for all measuring, of which one pass may take a 500th, and two seconds at most.
    """
    count = max(_FEWEST_BATCHES, min(_MOST_BATCHES, round(_PASS_SECONDS / seconds)))
    count = max(1, min(count, int(min(_LONGEST_PASS, budget / _PASSES) / seconds)))
    return Workload(tuple(dataset.batches[index] for index in spread(dataset.batches, count)))


def _run(model: Callable[..., Any], batch: Batch, source: str) -> None:
    try:
        model(*batch)
    except TautError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in batch)
        first = (str(error).splitlines() or [""])[0][:300]
        raise DataError(
            f"{source}: the model raised {type(error).__name__} on inputs of shape {shapes}: {first}",
            expected="batches that the unmodified model accepts",
        ) from error
