"""The light graph that the scheduler sees: operators by number, and which needs the result of which."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from taut.compile.interop._native import _schedule
from taut.errors import GraphError

MOST_OPERATORS = _schedule.most_operators


@dataclass(frozen=True)
class Convolution:
    """What decides whether convolutions can be merged into one.

    Attributes:
        source: names the input value; equal names are the same value.
        input_shape: shape of the input, without the batch.
        output_size: height and width of the output.
        kernel: height and width of the kernel.
        stride: steps along height and width.
        padding: zeros before and after height and width.
        groups: groups of channels.
        activation: name of the activation applied to the output, empty for none.
        dilation: distance of the taps along height and width.
    """

    source: str
    input_shape: tuple[int, ...]
    output_size: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    activation: str = ""
    dilation: tuple[int, int] = (1, 1)

    def merge_key(self) -> tuple[Any, ...] | None:
        """Equal keys may be merged; None with no other convolution.

        Beyond equal inputs, output sizes, strides and activations, the kernels must have the same centre, or the
        smaller one could not be padded with zeros to the larger.
        """
        if self.groups != 1 or self.dilation != (1, 1):
            return None
        centre = tuple(size - 2 * zeros for size, zeros in zip(self.kernel, self.padding, strict=True))
        return self.source, self.input_shape, self.output_size, self.stride, self.activation, centre


@dataclass(frozen=True)
class Operator:
    """One operator of an operator graph.

    Attributes:
        name: for messages and reports.
        kind: what it does, e.g. `conv`.
        convolution: set if it is a convolution that might be merged with others.
        attributes: anything else that its executor needs.
    """

    name: str
    kind: str = "operator"
    convolution: Convolution | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class OperatorGraph:
    """A directed acyclic graph of at most 4096 operators, which are numbered from 0.

    Attributes:
        operators: the operators.
        edges: pairs (producer, consumer), ascending and each once.

    Raises:
        GraphError: an edge names an operator that there is not, there is a cycle, or there are too many operators.
    """

    operators: tuple[Operator, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if len(self) > MOST_OPERATORS:
            raise GraphError(
                f"the graph has {len(self)} operators",
                expected=f"at most {MOST_OPERATORS}",
                fix="schedule its blocks one by one",
            )
        for producer, consumer in self.edges:
            if not (0 <= producer < len(self) and 0 <= consumer < len(self)):
                raise GraphError(
                    f"edge {producer} -> {consumer} leaves the graph",
                    expected=f"operators 0 to {len(self) - 1}",
                    fix="correct the edges",
                )
        object.__setattr__(self, "edges", tuple(sorted(set(self.edges))))
        if len(self.order) < len(self):
            stuck = sorted(set(range(len(self))) - set(self.order))
            raise GraphError(
                f"operators {', '.join(map(str, stuck[:10]))} are on a cycle or behind one",
                expected="a graph without cycles",
                fix="correct the edges",
            )

    @classmethod
    def from_edges(
        cls, size: int, edges: Iterable[Sequence[int]], operators: Sequence[Operator] | None = None
    ) -> OperatorGraph:
        """A graph of `size` operators, named by their numbers unless `operators` are given."""
        if not 0 <= size <= MOST_OPERATORS or (operators is not None and len(operators) != size):
            given = "" if operators is None else f", with {len(operators)} operators given"
            raise GraphError(
                f"a graph of size {size}{given}",
                expected=f"0 to {MOST_OPERATORS}, and one operator for each number",
                fix="correct the size, or schedule the blocks of a larger graph one by one",
            )
        if operators is None:
            operators = [Operator(str(number)) for number in range(size)]
        return cls(tuple(operators), tuple((int(producer), int(consumer)) for producer, consumer in edges))

    def __len__(self) -> int:
        return len(self.operators)

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """The operators that need the result of each, ascending."""
        made: list[list[int]] = [[] for _ in self.operators]
        for producer, consumer in self.edges:
            made[producer].append(consumer)
        return tuple(map(tuple, made))

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """The operators whose results each needs, ascending."""
        made: list[list[int]] = [[] for _ in self.operators]
        for producer, consumer in self.edges:
            made[consumer].append(producer)
        return tuple(map(tuple, made))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The operators, each after its predecessors and otherwise ascending."""
        waiting = [len(before) for before in self.predecessors]
        ready = [number for number, count in enumerate(waiting) if count == 0]
        made = []
        while ready:
            number = heapq.heappop(ready)
            made.append(number)
            for consumer in self.successors[number]:
                waiting[consumer] -= 1
                if waiting[consumer] == 0:
                    heapq.heappush(ready, consumer)
        return tuple(made)

    @cached_property
    def reachable(self) -> tuple[int, ...]:
        """For each operator a bit mask of those that it reaches, itself included."""
        made = [1 << number for number in range(len(self))]
        for number in reversed(self.order):
            for consumer in self.successors[number]:
                made[number] |= made[consumer]
        return tuple(made)

    def merge_classes(self) -> list[int]:
        """A number for each operator, equal where operators may be merged into one, -1 where with none."""
        numbers: dict[tuple[Any, ...], int] = {}
        classes = []
        for operator in self.operators:
            key = operator.convolution.merge_key() if operator.convolution else None
            classes.append(-1 if key is None else numbers.setdefault(key, len(numbers)))
        return classes

    def part(self, numbers: Sequence[int]) -> OperatorGraph:
        """The graph of some operators, renumbered in the order given."""
        place = {number: i for i, number in enumerate(numbers)}
        inside = ((place[a], place[b]) for a, b in self.edges if a in place and b in place)
        return OperatorGraph(tuple(self.operators[number] for number in numbers), tuple(inside))


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits set in `mask`, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
