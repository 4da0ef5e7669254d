"""What a schedule is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

Strategy = Literal["concurrent", "merge", "intra"]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)


class Stage(NamedTuple):
    """Operators that run between two barriers.

    Attributes:
        groups: operators of each group in the order in which they run; the first is the head.
        strategy: `concurrent` runs each group on a worker of its own; `merge` runs operators, one a group, as one;
            `intra` runs a single group, each of its operators on all workers.
    """

    groups: tuple[tuple[int, ...], ...]
    strategy: Strategy = "concurrent"

    @property
    def operators(self) -> tuple[int, ...]:
        """All operators of the stage, by group."""
        return tuple(number for group in self.groups for number in group)


@dataclass(frozen=True)
class Schedule:
    """Stages one after another.

    Attributes:
        stages: the stages, first to run first.
        costs: predicted seconds of each stage, if known.
        states: states that the search saw.
        transitions: transitions that the search saw.
        requests: costs of stages that the search asked for.
    """

    stages: tuple[Stage, ...]
    costs: tuple[float, ...] | None = None
    states: int = 0
    transitions: int = 0
    requests: int = 0

    @property
    def cost(self) -> float | None:
        """Predicted seconds of the whole schedule, if known."""
        return None if self.costs is None else sum(self.costs)
