"""Levels by what they are predicted to cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from taut.distributed._controllers._arguments import as_names, check_count
from taut.errors import ArgumentError, MeasurementError


class CostModelController:
    """The mildest level of each parameter whose predicted time is near the best level's: compress only where it pays.

    As steps add the times of their parameters up, the whole is as near its best. Predictions are asked for at each
    epoch, so that a model that learns from measurements changes the levels.

    Args:
        names: of the parameters to decide on.
        predict: seconds that a step spends on a parameter, by its name, at a level.
        levels: number of levels.
        slack: share by which the chosen level may be slower than the best.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self, names: Iterable[str], predict: Callable[[str, int], float], levels: int, *, slack: float = 0.05
    ) -> None:
        self._names = as_names(names)
        check_count("levels", levels, least=1)
        if not slack >= 0:
            raise ArgumentError("slack", slack, expected="0 or more")
        self._predict, self._levels, self._slack = predict, levels, slack

    def observe(self, name: str, gradient: torch.Tensor) -> None:
        """Nothing to note."""

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        """The level of each parameter.

        Raises:
            MeasurementError: a prediction is not a time.
        """
        return {name: self._mildest(name) for name in self._names}

    def _mildest(self, name: str) -> int:
        seconds = [self._predict(name, level) for level in range(self._levels)]
        for level, value in enumerate(seconds):
            if not (math.isfinite(value) and value >= 0):
                raise MeasurementError(
                    f"the cost model predicts {value} s for parameter {name!r} at level {level}",
                    expected="a finite number of seconds, 0 or more",
                )
        return next(level for level, value in enumerate(seconds) if value <= (1 + self._slack) * min(seconds))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the arguments say all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""
