"""What stages cost on a device: their groups run together, on the data of a real call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taut.compile.interop import Stage, Strategy
from taut.compile.scheduling._costs import Groups
from taut.compile.scheduling._merge import Mergeable, merge_convolutions, mergeable, merged_path
from taut.compile.scheduling._price import groups_to_price
from taut.compile.scheduling.streams._execute import Executor
from taut.compile.scheduling.streams._operators import StreamOperators, stream_operators
from taut.compile.scheduling.streams._program import repeated_stage, sequential_stages, staged_program
from taut.compile.scheduling.streams._streams import Streams

_WARM_UPS, _NUMBER, _REPEATS = 2, 6, 6
"""As the paper has them: untimed replays, stages in a replay, timed replays."""
_NEVER = 10
"""How many times what it takes alone a merged stage counts that was not priced."""


class DeviceOracle:
    """Costs of stages on a device, measured once each.

    A stage is captured several times over in one graph, with its barriers, and the least time of a few replays counts.
    What its operators need was computed by one call before.

    Args:
        executor: of the operators.
        inputs: of a call, on the device.
        streams: at most, for the groups of a stage.

    Attributes:
        known: seconds of stages that were measured.

    Source: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021), section 4.2.
    """

    def __init__(self, executor: Executor, inputs: Sequence[Any], streams: int) -> None:
        self._executor = executor
        self._streams = streams
        self._merged: Mapping[frozenset[int], float] = {}
        self.known: dict[Stage, float] = {}
        graph = executor.operators.graph
        keeping = staged_program(graph, sequential_stages(graph), frozenset(range(len(graph))))
        executor.streams.synchronize()
        self._values = executor.issue(keeping, executor.values(inputs))
        executor.streams.synchronize()

    def with_merged(self, merged: Mapping[frozenset[int], float]) -> DeviceOracle:
        """The same costs, and those of convolutions merged into one, by their operators."""
        made = copy.copy(self)
        made._merged = merged
        return made

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Those to consider: merging where there are prices of it."""
        return ("concurrent", "merge") if self._merged else ("concurrent",)

    def alone(self, operator: int) -> float:
        """Seconds of an operator by itself."""
        return self.measure(Stage(((operator,),)))

    def code(self, stage: Stage) -> tuple[Groups, ...]:
        """The groups of operators that a stage is."""
        return (stage.groups,)

    def plain(self, stage: Stage) -> Stage:
        """The stage under the name of what it does: one operator is not merged with anything."""
        return stage if self._merges(stage) else Stage(stage.groups)

    def wanted(self, stage: Stage) -> bool:
        """Whether a stage might be measured that is not."""
        return self.cost(stage) is None

    def cost(self, stage: Stage) -> float | None:
        """Seconds of a stage that was measured."""
        return self._merged.get(frozenset(stage.operators)) if self._merges(stage) else self.known.get(stage)

    def estimate(self, stage: Stage) -> float:
        """What a stage would take if its groups did not slow each other down; what was not priced is not merged."""
        if self._merges(stage):
            return _NEVER * sum(map(self.alone, stage.operators))
        return max(sum(map(self.alone, group)) for group in stage.groups)

    def measure(self, stage: Stage) -> float:
        """Seconds of a stage, measured when it is first asked for."""
        found = self.cost(stage)
        if found is None:
            found = self.known[stage] = self._measure(stage)
        return found

    def _merges(self, stage: Stage) -> bool:
        return stage.strategy == "merge" and len(stage.groups) > 1

    def _measure(self, stage: Stage) -> float:
        executor, streams = self._executor, self._executor.streams
        program = repeated_stage(stage, _NUMBER, self._streams)
        replay = streams.capture(lambda: executor.issue(program, list(self._values)))
        streams.time(replay, _WARM_UPS)
        return min(streams.time(replay, 1) for _ in range(_REPEATS)) / _NUMBER


def merge_prices(
    operators: StreamOperators, streams: Streams, inputs: Sequence[Any], late: Callable[[], bool]
) -> dict[frozenset[int], tuple[float, tuple[int, ...]]]:
    """Seconds of convolutions merged into one, with their nodes, by their operators.

    Args:
        operators: of a graph.
        streams: of the device.
        inputs: of a call, on the device.
        late: whether to stop pricing.
    """
    graph = operators.source
    owner = {node: number for number, own in enumerate(operators.nodes) for node in own}
    classes: dict[object, list[tuple[int, Mergeable]]] = {}
    for one in mergeable(graph):
        convolution = operators.graph.operators[owner[one.node]].convolution
        key = None if convolution is None else convolution.merge_key()
        if key is not None:
            classes.setdefault(key, []).append((owner[one.node], one))
    prices = {}
    for some in groups_to_price(classes.values()):
        if late():
            break
        nodes = tuple(one.node for _, one in some)
        merged = merge_convolutions(graph, [nodes])
        found = stream_operators(merged)
        path = merged_path(graph, nodes)
        wide = next(
            number
            for number, own in enumerate(found.nodes)
            if any(merged.nodes[node].module_path == path for node in own)
        )
        seconds = DeviceOracle(Executor(found, streams), inputs, 1).alone(wide)
        prices[frozenset(number for number, _ in some)] = seconds, nodes
    return prices
