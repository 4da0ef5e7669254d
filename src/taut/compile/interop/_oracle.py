"""Where the costs of stages come from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taut.compile.interop._graph import OperatorGraph, bits
from taut.compile.interop._types import STRATEGIES, Stage, Strategy
from taut.errors import ArgumentError


class Oracle(Protocol):
    """Gives the seconds of each stage, finite and not negative, in the order of the stages.

    A search asks for many stages at once, and for none twice. `Stages` builds each stage only when it is taken out;
    an oracle that computes on arrays reads `members`, `heads` and `strategies` instead.
    """

    def __call__(self, stages: Stages, /) -> ArrayLike: ...


class Stages(Sequence[Stage]):
    """A batch of stages of a graph.

    Attributes:
        strategies: index into `STRATEGIES` of each, (stages,) uint8.
    """

    strategies: NDArray[np.uint8]

    def __init__(self, stages: Sequence[Stage], size: int) -> None:
        self._stages: Sequence[Stage] = stages
        self._size = size
        self.strategies = np.array([STRATEGIES.index(stage.strategy) for stage in stages], np.uint8)

    def __len__(self) -> int:
        return len(self.strategies)

    @overload
    def __getitem__(self, index: int) -> Stage: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stage]: ...
    def __getitem__(self, index: int | slice) -> Stage | list[Stage]:
        if isinstance(index, slice):
            return [self._stage(i) for i in range(*index.indices(len(self)))]
        return self._stage(range(len(self))[index])

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        """Which operators each stage has, (stages, operators)."""
        return self._flags([stage.operators for stage in self])

    @cached_property
    def heads(self) -> NDArray[np.bool_]:
        """Which operators lead its groups, (stages, operators)."""
        return self._flags([[group[0] for group in stage.groups] for stage in self])

    def _stage(self, index: int) -> Stage:
        return self._stages[index]

    def _flags(self, numbers: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        made = np.zeros((len(numbers), self._size), np.bool_)
        for row, chosen in zip(made, numbers, strict=True):
            row[list(chosen)] = True
        return made


class PackedStages(Stages):
    """Stages of a part of a graph as the native search writes them.

    Args:
        graph: the part, its operators numbered so that predecessors come first.
        numbers: the number of each in the whole graph.
        size: operators of the whole graph.
        words: 64-bit words of each set.
        operators: the operators of each stage as bits.
        heads: the heads of each stage as bits.
        strategies: one byte a stage.
    """

    def __init__(
        self,
        graph: OperatorGraph,
        numbers: Sequence[int],
        size: int,
        words: int,
        operators: bytes,
        heads: bytes,
        strategies: bytes,
    ) -> None:
        self.strategies = np.frombuffer(strategies, np.uint8)
        self._graph = graph
        self._numbers = np.asarray(numbers, np.intp)
        self._size = size
        self._bytes = 8 * words
        self._packed_operators = operators
        self._packed_heads = heads
        self._groups: dict[int, tuple[int, ...]] = {}  # few, though stages are many

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        return self._unpack(self._packed_operators)

    @cached_property
    def heads(self) -> NDArray[np.bool_]:
        return self._unpack(self._packed_heads)

    def _stage(self, index: int) -> Stage:
        place = slice(index * self._bytes, (index + 1) * self._bytes)
        operators = int.from_bytes(self._packed_operators[place], "little")
        heads = int.from_bytes(self._packed_heads[place], "little")
        groups = tuple(self._group(self._graph.reachable[head] & operators) for head in bits(heads))
        return Stage(groups, STRATEGIES[self.strategies[index]])

    def _group(self, members: int) -> tuple[int, ...]:
        known = self._groups.get(members)
        if known is None:
            known = self._groups[members] = tuple(int(self._numbers[i]) for i in bits(members))
        return known

    def _unpack(self, packed: bytes) -> NDArray[np.bool_]:
        flags = np.unpackbits(
            np.frombuffer(packed, np.uint8).reshape(len(self), self._bytes), axis=1, bitorder="little"
        )
        made = np.zeros((len(self), self._size), np.bool_)
        made[:, self._numbers] = flags[:, : len(self._numbers)]
        return made


class CachedOracle:
    """Asks another oracle for each pair of operators and strategy only once, over any number of searches.

    Args:
        oracle: the oracle to ask.

    Attributes:
        costs: what it answered.
    """

    def __init__(self, oracle: Oracle) -> None:
        self.costs: dict[tuple[frozenset[int], Strategy], float] = {}
        self._oracle = oracle

    def __call__(self, stages: Stages, /) -> NDArray[np.float64]:
        keys: list[tuple[frozenset[int], Strategy]] = [(frozenset(stage.operators), stage.strategy) for stage in stages]
        fresh = {key: i for i, key in enumerate(keys) if key not in self.costs}
        if fresh:
            asked = Stages([stages[i] for i in fresh.values()], stages.members.shape[1])
            self.costs.update(zip(fresh, map(float, ask(self._oracle, asked)), strict=True))
        return np.array([self.costs[key] for key in keys], np.float64)


def ask(oracle: Oracle, stages: Stages) -> NDArray[np.float64]:
    """The costs of stages; raises ArgumentError unless there is one for each, finite and not negative."""
    costs = np.asarray(oracle(stages), np.float64)
    if costs.shape != (len(stages),):
        raise ArgumentError(
            "oracle", f"costs of shape {costs.shape}", expected=f"one cost for each of {len(stages)} stages"
        )
    wrong = ~(np.isfinite(costs) & (costs >= 0))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ArgumentError(
            "oracle", float(costs[index]), expected=f"finite seconds, not negative, for the stage {stages[index]}"
        )
    return costs
