"""Levels that are known before the training begins."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from taut.distributed._controllers._arguments import as_names, check_count, check_levels
from taut.errors import ArgumentError


class _Blind:
    """Looks at no gradient and keeps nothing."""

    def observe(self, name: str, gradient: torch.Tensor) -> None:
        """Nothing to note."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the arguments say all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


class Static(_Blind):
    """One level for ever.

    Args:
        names: of the parameters to decide on.
        level: of each.

    Raises:
        ArgumentError: there is no name, or the level is not a whole number from 0.
    """

    def __init__(self, names: Iterable[str], level: int) -> None:
        check_levels(level=level)
        self._levels = dict.fromkeys(as_names(names), level)

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        """The level."""
        return dict(self._levels)


class WarmUp(_Blind):
    """Mild compression at first, hard compression from then on.

    Args:
        names: of the parameters to decide on.
        until: the epoch before which compression rises from level to level, at equal distances.
        levels: in their order; the last is that of all epochs from `until` on.

    Raises:
        ArgumentError: there is no name, an epoch or level is not a whole number from 0, or there is but one level.
    """

    def __init__(self, names: Iterable[str], until: int, levels: Sequence[int] = (0, 1)) -> None:
        check_count("until", until, least=0)
        if len(levels) < 2:
            raise ArgumentError("levels", levels, expected="two levels or more")
        for level in levels:
            check_levels(levels=level)
        self._names = as_names(names)
        rises = len(levels) - 1
        self._starts, self._levels = [until * rise / rises for rise in range(1, rises + 1)], tuple(levels)

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        """The level that this epoch has come to."""
        return dict.fromkeys(self._names, self._levels[bisect.bisect_right(self._starts, epoch)])


class Replay(_Blind):
    """The levels of a recorded training; the last ones go on for ever.

    Args:
        schedule: levels by name at each epoch.

    Raises:
        ArgumentError: there is no epoch, or epochs have different names.
    """

    def __init__(self, schedule: Sequence[Mapping[str, int]]) -> None:
        if not schedule or any(levels.keys() != schedule[0].keys() for levels in schedule):
            raise ArgumentError("schedule", schedule, expected="the levels of the same parameters at each epoch")
        self._schedule = [dict(levels) for levels in schedule]

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        """The recorded levels."""
        return dict(self._schedule[min(epoch, len(self._schedule) - 1)])


class RandomSchedule(Replay):
    """The levels of a recorded training, each parameter's in a random order of epochs: the same traffic, no insight.

    What a controller gains over this control is due to when it compresses, not to how much.

    Args:
        schedule: levels by name at each epoch.
        seed: equal seeds give equal orders.

    Raises:
        ArgumentError: there is no epoch, or epochs have different names.
    """

    def __init__(self, schedule: Sequence[Mapping[str, int]], seed: int) -> None:
        super().__init__(schedule)
        generator = np.random.default_rng(seed)
        orders = {name: generator.permutation(len(schedule)) for name in sorted(schedule[0])}
        self._schedule = [
            {name: schedule[orders[name][epoch]][name] for name in schedule[0]} for epoch in range(len(schedule))
        ]

    @classmethod
    def within(
        cls, costs: Mapping[str, Sequence[float]], epochs: int, budget: float, seed: int, *, low: int = 0, high: int = 1
    ) -> RandomSchedule:
        """As many epochs of single parameters at the low level, drawn at random, as a budget has room for.

        Args:
            costs: bytes an epoch at each level, by name.
            epochs: of the training.
            budget: bytes of the whole training.
            seed: equal seeds give equal schedules.
            low: the level that costs more.
            high: the level of the other epochs.

        Raises:
            ArgumentError: there is no epoch or parameter, or the high level alone exceeds the budget.
        """
        names = as_names(costs)
        check_count("epochs", epochs, least=1)
        left = budget - epochs * sum(costs[name][high] for name in names)
        if left < 0:
            raise ArgumentError(
                "budget", budget, expected=f"{budget - left:g} bytes, what the high level needs, or more"
            )
        schedule = [dict.fromkeys(names, high) for _ in range(epochs)]
        for cell in np.random.default_rng([seed, 1]).permutation(epochs * len(names)).tolist():
            epoch, name = cell // len(names), names[cell % len(names)]
            extra = costs[name][low] - costs[name][high]
            if extra <= left:
                schedule[epoch][name], left = low, left - extra
        return cls(schedule, seed)
