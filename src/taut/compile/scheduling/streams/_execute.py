"""Issues the operators of a graph to streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from taut.compile.scheduling.streams._operators import StreamOperators, outside
from taut.compile.scheduling.streams._program import PROLOGUE, Record, Release, Run, StreamProgram, Wait
from taut.compile.scheduling.streams._streams import Streams
from taut.errors import GraphError, TautError
from taut.graph import Plan, PlanStep


@dataclasses.dataclass
class Stamps:
    """When things were done, as stamps of the streams.

    Attributes:
        start: of a call.
        operators: of each operator its stream, begin and end.
        ends: of each stage.
    """

    start: Any = None
    operators: dict[int, tuple[int, Any, Any]] = dataclasses.field(default_factory=dict)
    ends: list[Any] = dataclasses.field(default_factory=list)


class Executor:
    """Runs the operators of a graph on the streams of a device.

    Args:
        operators: to run.
        streams: of the device; constants are copied there.

    Raises:
        GraphError: an operator has no kernel there.
    """

    def __init__(self, operators: StreamOperators, streams: Streams) -> None:
        self.operators = operators
        self.streams = streams
        if streams.device.type != "cpu":
            _check_kernels(operators, streams.device)
        self._plan = Plan(operators.source, streams.device)
        steps = {step.node.id: step for step in self._plan.steps}
        slots = self._plan.slots
        self._prologue = [steps[node] for node in operators.prologue]
        self._steps = [[steps[node] for node in own] for own in operators.nodes]
        self._outside = [[slots[ref] for ref in refs] for refs in outside(operators)]
        self._inside = [
            [slot for step in own for slot in step.outputs if slot not in kept]
            for own, kept in zip(self._steps, map(set, self._outside), strict=True)
        ]

    def values(self, inputs: Sequence[Any]) -> list[Any]:
        """A place for each value of a call, with constants and inputs in theirs."""
        values = self._plan.template.copy()
        for slot, value in zip(self._plan.inputs, inputs, strict=True):
            values[slot] = value
        return values

    def results(self, values: list[Any]) -> list[Any]:
        """The flat results of a call."""
        return list(self._plan.results(values))

    def issue(self, program: StreamProgram, values: list[Any], stamps: Stamps | None = None) -> list[Any]:
        """Issue a program; returns `values` with what it computed.

        Args:
            program: which was verified.
            values: from `values`.
            stamps: to fill in, while capturing.

        Raises:
            GraphError: an operator fails.
        """
        streams = self.streams
        events: dict[int, Any] = {}
        ends = set(program.ends)
        if stamps is not None:
            stamps.start = streams.stamp(0)
        # A capture is replayed whatever the caller's mode is, and so must not depend on that of the first call.
        with torch.inference_mode(), torch.autocast(streams.device.type, enabled=False):
            for position, instruction in enumerate(program.instructions, 1):
                match instruction:
                    case Run(stream, operator):
                        begin = None if stamps is None else streams.stamp(stream)
                        with streams.run_on(stream):
                            self._run(operator, values)
                        if stamps is not None and operator != PROLOGUE:
                            stamps.operators[operator] = stream, begin, streams.stamp(stream)
                    case Record(stream, event):
                        events[event] = streams.record(stream)
                    case Wait(stream, event):
                        streams.wait(stream, events[event])
                    case Release(operator):
                        for slot in self._outside[operator]:
                            values[slot] = None
                if stamps is not None and position in ends:
                    stamps.ends.append(streams.stamp(0))
        return values

    def _run(self, operator: int, values: list[Any]) -> None:
        for step in self._prologue if operator == PROLOGUE else self._steps[operator]:
            _run_step(step, values)
        if operator != PROLOGUE:
            for slot in self._inside[operator]:
                values[slot] = None


def _run_step(step: PlanStep, values: list[Any]) -> None:
    node = step.node
    try:
        if step.output >= 0:
            values[step.output] = step.function(*step.get(values))
            return
        results = step.function(*step.get(values))
        if step.outputs:
            for slot, value in zip(step.outputs, results, strict=True):
                values[slot] = value
    except TautError:
        raise
    except Exception as error:
        where = f" ({node.source or node.module_path})" if node.source or node.module_path else ""
        raise GraphError(f"node %{node.id} {node.op}{where} failed: {error}") from error


def _check_kernels(operators: StreamOperators, device: torch.device) -> None:
    for node in operators.source.nodes:
        if node.op.startswith(("taut.", "mkldnn.")):
            raise GraphError(
                f"node %{node.id} {node.op} has kernels for CPUs only",
                expected=f"operators that run on {device}",
                fix="schedule the model as it was before passes for CPUs changed it",
            )
